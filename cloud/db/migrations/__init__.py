"""Alembic's folder: `env` and one file per revision under `versions`. Run by `cloud.db.migrate`."""
