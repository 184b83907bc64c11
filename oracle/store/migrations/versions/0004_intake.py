"""API keys, leases, and the log of changes with the triggers that write it"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Per table: the kind of thing, and where its key, job, signer, status and reason stand.
_LOGGED = {
    "receipts": ("receipt", "digest", "job_id", "signer", "status", "reason"),
    "escrows": ("escrow", "job_id", "job_id", None, "status", "reason"),
    "attestations": ("attestation", "digest", None, None, "status", "reason"),
    "job_events": ("job", "job_id", "job_id", None, "event", None),
}
_UPDATED = ("receipts", "escrows", "attestations")
_COLUMNS = "kind, key, job_id, signer, status, reason"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "changes",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("era", sa.BigInteger(), nullable=False, server_default=_era()),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("job_id", sa.LargeBinary(length=32), nullable=True),
        sa.Column("signer", sa.String(length=42), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_changes_era_id"), "changes", ["era", "id"])
    for statement in _triggers():
        op.execute(statement)


def downgrade() -> None:
    for table in _LOGGED:
        for event in ("inserted", "updated") if table in _UPDATED else ("inserted",):
            op.execute(_drop(f"{table}_{event}", table))
    op.execute(_drop("jobs_forgotten", "jobs"))
    if _is_postgresql():
        for table in (*_LOGGED, "jobs"):
            op.execute(f"DROP FUNCTION log_{table}()")
    op.drop_index(op.f("ix_changes_era_id"), table_name="changes")
    op.drop_table("changes")
    op.drop_table("leases")
    op.drop_table("api_keys")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _era() -> sa.TextClause:
    return sa.text("(pg_current_xact_id()::text::bigint)" if _is_postgresql() else "0")


def _drop(name: str, table: str) -> str:
    return f"DROP TRIGGER {name}" + (f" ON {table}" if _is_postgresql() else "")


def _insert(kind: str, *columns: str | None) -> str:
    values = ", ".join(f"NEW.{column}" if column else "NULL" for column in columns)
    return f"INSERT INTO changes ({_COLUMNS}) VALUES ('{kind}', {values})"  # noqa: S608 - constants


_FORGOTTEN = (
    f"INSERT INTO changes ({_COLUMNS}) "  # noqa: S608 - constants
    "VALUES ('job', OLD.job_id, OLD.job_id, NULL, 'forgotten', NULL)"
)


def _triggers() -> list[str]:
    return _postgresql_triggers() if _is_postgresql() else _sqlite_triggers()


def _sqlite_triggers() -> list[str]:
    statements = []
    for table, columns in _LOGGED.items():
        insert = _insert(*columns)
        statements.append(
            f"CREATE TRIGGER {table}_inserted AFTER INSERT ON {table} BEGIN {insert}; END"
        )
        if table in _UPDATED:
            changed = "NEW.status IS NOT OLD.status OR NEW.reason IS NOT OLD.reason"
            statements.append(
                f"CREATE TRIGGER {table}_updated AFTER UPDATE ON {table} "
                f"WHEN {changed} BEGIN {insert}; END"
            )
    statements.append(f"CREATE TRIGGER jobs_forgotten AFTER DELETE ON jobs BEGIN {_FORGOTTEN}; END")
    return statements


def _postgresql_triggers() -> list[str]:
    statements = []
    inserts = {table: _insert(*columns) for table, columns in _LOGGED.items()}
    for table, insert in {**inserts, "jobs": _FORGOTTEN}.items():
        statements.append(
            f"CREATE FUNCTION log_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {insert}; RETURN NULL; END $$"
        )
    each = "FOR EACH ROW"
    for table in _LOGGED:
        run = f"EXECUTE FUNCTION log_{table}()"
        statements.append(f"CREATE TRIGGER {table}_inserted AFTER INSERT ON {table} {each} {run}")
        if table in _UPDATED:
            changed = "(NEW.status, NEW.reason) IS DISTINCT FROM (OLD.status, OLD.reason)"
            statements.append(
                f"CREATE TRIGGER {table}_updated AFTER UPDATE ON {table} "
                f"{each} WHEN ({changed}) {run}"
            )
    statements.append(
        f"CREATE TRIGGER jobs_forgotten AFTER DELETE ON jobs {each} EXECUTE FUNCTION log_jobs()"
    )
    return statements
