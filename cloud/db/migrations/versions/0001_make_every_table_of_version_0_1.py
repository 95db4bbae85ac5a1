"""Make every table of version 0.1. Released: never edited again, a change is a new revision."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("evidence", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sa.UniqueConstraint("sha256", name=op.f("uq_audit_sha256")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    op.create_table(
        "bases",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_bases")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("topic", sa.String(length=256), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(op.f("ix_dead_letters_at"), "dead_letters", ["at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("payload", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("result", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
    )
    op.create_index("ix_jobs_state_kind", "jobs", ["state", "kind", "not_before"], unique=False)
    op.create_table(
        "lines",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=256), nullable=False),
        sa.Column("classes", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("escape_cost", sa.Double(), nullable=False),
        sa.Column("overkill_cost", sa.Double(), nullable=False),
        sa.Column("currency", sa.String(length=8), nullable=False),
        sa.Column("cameras", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("hour_s", sa.Double(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lines")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("topic", sa.String(length=256), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("retain", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "staging",
        sa.Column("sid", sa.String(length=36), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.Column("offer", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("held", sa.Text(), nullable=False),
        sa.Column("offered_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_staging")),
    )
    op.create_index(op.f("ix_staging_edge"), "staging", ["edge"], unique=False)
    op.create_index(op.f("ix_staging_offered_at"), "staging", ["offered_at"], unique=False)
    op.create_table(
        "candidates",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("manifest", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("manifest_sha", sa.String(length=64), nullable=False),
        sa.Column("base_sha", sa.String(length=64), nullable=False),
        sa.Column("proposal", sa.LargeBinary(), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=True),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("report", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("metrics", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["base_sha"], ["bases.sha256"], name=op.f("fk_candidates_base_sha_bases")),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_candidates_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidates")),
        sa.UniqueConstraint("line", "release", name=op.f("uq_candidates_line_release")),
    )
    op.create_index(op.f("ix_candidates_state"), "candidates", ["state"], unique=False)
    op.create_table(
        "edges",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.String(length=16), nullable=True),
        sa.Column("heartbeat", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("update_state", sa.String(length=32), nullable=False),
        sa.Column("report_counter", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_edges_line_lines")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_edges")),
    )
    op.create_index(op.f("ix_edges_line"), "edges", ["line"], unique=False)
    op.create_table(
        "reference_images",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=256), nullable=False),
        sa.Column("domain", sa.String(length=256), nullable=True),
        sa.Column("group", sa.String(length=256), nullable=True),
        sa.Column("must_catch", sa.Boolean(), nullable=False),
        sa.Column("active_from", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_reference_images_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_images")),
        sa.UniqueConstraint("line", "purpose", "sha256", name=op.f("uq_reference_images_line_purpose_sha256")),
    )
    op.create_index("ix_reference_images_line_purpose", "reference_images", ["line", "purpose"], unique=False)
    op.create_table(
        "releases",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("adapter_release", sa.Integer(), nullable=False),
        sa.Column("adapter_sha", sa.String(length=64), nullable=False),
        sa.Column("rollback_of", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("wave_opened_at", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.String(length=256), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("live_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_releases_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("line", "number", name=op.f("uq_releases_line_number")),
    )
    op.create_index("ix_releases_line_state", "releases", ["line", "state"], unique=False)
    op.create_table(
        "snapshots",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_snapshots_line_lines")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "aggregates",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("manifest", sa.String(length=36), nullable=False),
        sa.Column("cell", sa.Integer(), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("period", sa.Integer(), nullable=False),
        sa.Column("period_start", sa.BigInteger(), nullable=False),
        sa.Column("period_end", sa.BigInteger(), nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("product", sa.String(length=256), nullable=True),
        sa.Column("predicted", sa.String(length=256), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("n_selected", sa.Integer(), nullable=False),
        sa.Column("verdicts", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("sum_g", sa.Double(), nullable=False),
        sa.Column("sum_g2", sa.Double(), nullable=False),
        sa.Column("sum_defect", sa.Double(), nullable=False),
        sa.Column("hist", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(["edge"], ["edges.name"], name=op.f("fk_aggregates_edge_edges")),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_aggregates_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aggregates")),
        sa.UniqueConstraint("manifest", "cell", name=op.f("uq_aggregates_manifest_cell")),
    )
    op.create_index("ix_aggregates_line_period", "aggregates", ["line", "period"], unique=False)
    op.create_table(
        "device_reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("attempted", sa.Integer(), nullable=True),
        sa.Column("loaded", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("report", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["edge"], ["edges.name"], name=op.f("fk_device_reports_edge_edges")),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_device_reports_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_reports")),
        sa.UniqueConstraint("edge", "counter", name=op.f("uq_device_reports_edge_counter")),
    )
    op.create_index("ix_device_reports_line_release", "device_reports", ["line", "release"], unique=False)
    op.create_table(
        "flags",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("sid", sa.String(length=36), nullable=True),
        sa.Column("serial", sa.String(length=256), nullable=True),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.Column("claimed", sa.String(length=256), nullable=True),
        sa.Column("flagged_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["edge"], ["edges.name"], name=op.f("fk_flags_edge_edges")),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_flags_line_lines")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flags")),
    )
    op.create_index(op.f("ix_flags_sid"), "flags", ["sid"], unique=False)
    op.create_table(
        "losses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("manifest", sa.String(length=36), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.String(length=256), nullable=True),
        sa.Column("declared_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["edge"], ["edges.name"], name=op.f("fk_losses_edge_edges")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_losses")),
        sa.UniqueConstraint("manifest", "first", name=op.f("uq_losses_manifest_first")),
    )
    op.create_index("ix_losses_edge_epoch", "losses", ["edge", "epoch"], unique=False)
    op.create_table(
        "samples",
        sa.Column("sid", sa.String(length=36), nullable=False),
        sa.Column("edge", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("camera", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.String(length=256), nullable=False),
        sa.Column("lot", sa.String(length=256), nullable=True),
        sa.Column("product", sa.String(length=256), nullable=True),
        sa.Column("captured_at", sa.BigInteger(), nullable=False),
        sa.Column("clock_ok", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("predicted", sa.String(length=256), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("defect_score", sa.Double(), nullable=True),
        sa.Column("stratum", sa.String(length=16), nullable=False),
        sa.Column("pi_select", sa.Double(), nullable=False),
        sa.Column("pi_survive", sa.Double(), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("period", sa.Integer(), nullable=False),
        sa.Column("meta", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("meta_sha", sa.String(length=64), nullable=False),
        sa.Column("landed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["edge"], ["edges.name"], name=op.f("fk_samples_edge_edges")),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_samples_line_lines")),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_samples")),
        sa.UniqueConstraint("edge", "epoch", "seq", name=op.f("uq_samples_edge_epoch_seq")),
    )
    op.create_index("ix_samples_line_period", "samples", ["line", "period"], unique=False)
    op.create_index("ix_samples_line_release", "samples", ["line", "release", "captured_at"], unique=False)
    op.create_index("ix_samples_line_stored_at", "samples", ["line", "stored_at"], unique=False)
    op.create_index("ix_samples_serial", "samples", ["line", "serial"], unique=False)
    op.create_index(op.f("ix_samples_sha256"), "samples", ["sha256"], unique=False)
    op.create_table(
        "labels",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sid", sa.String(length=36), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=True),
        sa.Column("author", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("note", sa.String(length=256), nullable=True),
        sa.Column("queue", sa.String(length=16), nullable=False),
        sa.Column("labelled_at", sa.BigInteger(), nullable=False),
        sa.Column("undoes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_labels_line_lines")),
        sa.ForeignKeyConstraint(["sid"], ["samples.sid"], name=op.f("fk_labels_sid_samples")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labels")),
    )
    op.create_index(op.f("ix_labels_labelled_at"), "labels", ["labelled_at"], unique=False)
    op.create_index(op.f("ix_labels_line"), "labels", ["line"], unique=False)
    op.create_index("ix_labels_sid_id", "labels", ["sid", "id"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("sid", sa.String(length=36), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("queue", sa.String(length=16), nullable=False),
        sa.Column("pi_label", sa.Double(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("gold", sa.String(length=256), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["line"], ["lines.name"], name=op.f("fk_tasks_line_lines")),
        sa.ForeignKeyConstraint(["sid"], ["samples.sid"], name=op.f("fk_tasks_sid_samples")),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_tasks")),
    )
    op.create_index("ix_tasks_queue", "tasks", ["line", "state", "queue", "value"], unique=False)
