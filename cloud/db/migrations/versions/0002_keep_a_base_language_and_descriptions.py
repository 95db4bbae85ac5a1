"""Keep a base's tokenizer and language head, and what its language model said of samples."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bases", sa.Column("tokenizer", sa.String(length=64), nullable=True))
    op.add_column("bases", sa.Column("language_head", sa.String(length=64), nullable=True))
    op.create_table(
        "descriptions",
        sa.Column("sid", sa.String(length=36), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("dropped", sa.String(length=32), nullable=True),
        sa.Column("base_sha", sa.String(length=64), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["base_sha"], ["bases.sha256"], name=op.f("fk_descriptions_base_sha_bases")),
        sa.ForeignKeyConstraint(["sid"], ["samples.sid"], name=op.f("fk_descriptions_sid_samples")),
        sa.PrimaryKeyConstraint("sid", "language", name=op.f("pk_descriptions")),
    )


def downgrade() -> None:
    op.drop_table("descriptions")
    op.drop_column("bases", "language_head")
    op.drop_column("bases", "tokenizer")
