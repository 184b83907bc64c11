"""Registrations by identity proof, and the API keys that they got"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STANDING = "state <> 'REJECTED'"
UNIQUE = ("name", "wallet", "nullifier")


def upgrade() -> None:
    """Create the registrations, and let API keys say which one they are of."""
    op.create_table(
        "registrations",
        sa.Column("registration_id", sa.String(66), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("company", sa.String(200), nullable=False),
        sa.Column("wallet", sa.String(42), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("site", sa.String(255), nullable=False),
        sa.Column("template", sa.String(255), nullable=False),
        sa.Column("nullifier", sa.String(66), nullable=False),
        sa.Column("proof_digest", sa.String(66), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("proven_at", sa.BigInteger, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("decided_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("registration_id", name="pk_registrations"),
    )
    for column in UNIQUE:
        op.create_index(
            f"uq_registrations_{column}",
            "registrations",
            [column],
            unique=True,
            sqlite_where=sa.text(STANDING),
            postgresql_where=sa.text(STANDING),
        )
    op.add_column("api_keys", sa.Column("registration_id", sa.String(66)))


def downgrade() -> None:
    """Drop both; keys of registrations go with them."""
    op.execute("DELETE FROM api_keys WHERE registration_id IS NOT NULL")
    op.drop_column("api_keys", "registration_id")
    op.drop_table("registrations")
