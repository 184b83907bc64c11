"""The hub's tables: types that SQLite and PostgreSQL share.

Models are kept as their JSON. Node ids are text: a uint64 outgrows BIGINT.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

profiles = Table(
    "profiles",
    metadata,
    Column("node_id", String(20), primary_key=True),
    Column("document", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

bundles = Table(
    "bundles",
    metadata,
    Column("digest", String(66), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(66), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("node_id", String(20), nullable=False),
    Column("state", String(16), nullable=False),
    Column("terms", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("bundle_digest", ForeignKey("bundles.digest"), nullable=False),
    Column("progress", Text),
    Column("failure", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Index(None, "node_id", "state", "checked_at"),
    # A node works on one job at a time; the database holds that, whoever races.
    Index(
        "uq_jobs_running",
        "node_id",
        unique=True,
        sqlite_where=text("state = 'RUNNING'"),
        postgresql_where=text("state = 'RUNNING'"),
    ),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id"), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    # Null for the keys of the keys file.
    Column("registration_id", String(66)),
)

_STANDING = text("state <> 'REJECTED'")

registrations = Table(
    "registrations",
    metadata,
    Column("registration_id", String(66), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("company", String(200), nullable=False),
    Column("wallet", String(42), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("site", String(255), nullable=False),
    Column("template", String(255), nullable=False),
    Column("nullifier", String(66), nullable=False),
    Column("proof_digest", String(66), nullable=False),
    Column("state", String(16), nullable=False),
    Column("proven_at", BigInteger, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger),
    # One account, one name, one wallet: the database holds that, whoever races.
    *(
        Index(
            f"uq_registrations_{column}",
            column,
            unique=True,
            sqlite_where=_STANDING,
            postgresql_where=_STANDING,
        )
        for column in ("name", "wallet", "nullifier")
    ),
)
