"""Platforms, the quotes that the chain checks, and statements of either kind

Facts from before do not tell which platform quoted a key: they are read from the chain again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from oracle.store.tables import Unsigned64

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_FACTS = ("jobs", "job_events", "enclaves", "measurements", "chain_events", "checkpoints", "cursor")
_CHANGE = (
    "INSERT INTO changes (kind, key, job_id, signer, status, reason) "
    "VALUES ('quote', NEW.digest, NULL, NULL, NEW.status, NEW.reason)"
)


def upgrade() -> None:
    for table in _FACTS:
        op.execute(sa.delete(sa.table(table)))
    # not by a new table, which would lose the triggers on this one
    op.execute("ALTER TABLE attestations RENAME COLUMN registration TO statement")
    op.add_column("attestations", sa.Column("platform", sa.LargeBinary(length=32), nullable=True))
    op.create_index(op.f("ix_attestations_platform"), "attestations", ["platform"])
    op.add_column("enclaves", sa.Column("platform", sa.LargeBinary(length=32), nullable=True))
    op.create_index(op.f("ix_enclaves_platform"), "enclaves", ["platform"])
    op.create_table(
        "platforms",
        sa.Column("platform", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("module_svn", sa.LargeBinary(length=16), nullable=False),
        sa.Column("expiry", Unsigned64(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("platform", name=op.f("pk_platforms")),
    )
    op.create_table(
        "quotes",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("enclave_key", sa.String(length=42), nullable=False),
        sa.Column("encryption_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("platform", sa.LargeBinary(length=32), nullable=False),
        sa.Column("quote", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("slot", sa.BigInteger(), nullable=True),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_quotes")),
    )
    op.create_index(op.f("ix_quotes_status"), "quotes", ["status"])
    op.create_index(op.f("ix_quotes_slot"), "quotes", ["slot"])
    for statement in _postgresql_triggers() if _is_postgresql() else _sqlite_triggers():
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("quotes")
    if _is_postgresql():
        op.execute("DROP FUNCTION log_quotes()")
    op.drop_table("platforms")
    op.drop_index(op.f("ix_enclaves_platform"), table_name="enclaves")
    op.drop_column("enclaves", "platform")
    op.drop_index(op.f("ix_attestations_platform"), table_name="attestations")
    # what vouches for a platform is no registration: its quorum is collected again
    op.execute(
        "UPDATE attestations SET statement = NULL, signatures = NULL, status = 'WAITING', "
        "slot = NULL WHERE platform IS NOT NULL AND status <> 'REJECTED'"
    )
    op.drop_column("attestations", "platform")
    op.execute("ALTER TABLE attestations RENAME COLUMN statement TO registration")
    for table in _FACTS:
        op.execute(sa.delete(sa.table(table)))


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _sqlite_triggers() -> list[str]:
    changed = "NEW.status IS NOT OLD.status OR NEW.reason IS NOT OLD.reason"
    return [
        f"CREATE TRIGGER quotes_inserted AFTER INSERT ON quotes BEGIN {_CHANGE}; END",
        f"CREATE TRIGGER quotes_updated AFTER UPDATE ON quotes WHEN {changed} BEGIN {_CHANGE}; END",
    ]


def _postgresql_triggers() -> list[str]:
    changed = "(NEW.status, NEW.reason) IS DISTINCT FROM (OLD.status, OLD.reason)"
    return [
        "CREATE FUNCTION log_quotes() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {_CHANGE}; RETURN NULL; END $$",
        "CREATE TRIGGER quotes_inserted AFTER INSERT ON quotes "
        "FOR EACH ROW EXECUTE FUNCTION log_quotes()",
        "CREATE TRIGGER quotes_updated AFTER UPDATE ON quotes "
        f"FOR EACH ROW WHEN ({changed}) EXECUTE FUNCTION log_quotes()",
    ]
