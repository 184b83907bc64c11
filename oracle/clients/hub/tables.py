"""The hub's tables: types that SQLite and PostgreSQL share.

Models are kept as their JSON. Node ids are text: a uint64 outgrows BIGINT. Times are Unix seconds.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
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
    # Of an older form, which states less than terms now need: its node has to publish it anew.
    Column("outdated", Integer, nullable=False, server_default="0"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", String(20), primary_key=True),
    # When the node was last heard of, and when it last was given a job.
    Column("seen_at", BigInteger, nullable=False),
    Column("assigned_at", BigInteger, nullable=False),
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
    Column("route", Text),
    # What was asked for without the bundle, so that it can be asked for again; and the job that
    # this one takes the place of.
    Column("wish", Text),
    Column("replaces", String(66)),
    Column("bundle_digest", ForeignKey("bundles.digest"), nullable=False),
    Column("progress", Text),
    Column("failure", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Index(None, "node_id", "state", "checked_at"),
    Index(None, "tenant", "created_at", "job_id"),
    Index("uq_jobs_replaces", "replaces", unique=True),
    Index(None, "state", "checked_at"),
)

leases = Table(
    "leases",
    metadata,
    # One node on a job, and one job on a node: the database holds both, whoever races.
    Column("job_id", ForeignKey("jobs.job_id"), primary_key=True),
    Column("node_id", String(20), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("uq_leases_node_id", "node_id", unique=True),
)

requests = Table(
    "requests",
    metadata,
    # The jobs that were asked for under an Idempotency-Key.
    Column("tenant", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_digest", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id"), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Index(None, "sha256"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", String(66), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # What the complete upload turned out to be: a bundle, or what is wrong with it.
    Column("bundle_digest", String(66)),
    Column("fault", Text),
    Index(None, "tenant"),
    Index(None, "expires_at"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", ForeignKey("uploads.upload_id"), primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("label", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    # The keys of the keys file are known anew at each start; these here stay.
    Column("issued", Integer, nullable=False),
    Index("uq_api_keys_digest", "digest", unique=True),
    Index(None, "role", "subject"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("wallet", String(42), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

challenges = Table(
    "challenges",
    metadata,
    # Of signing in: each nonce counts once.
    Column("nonce", String(64), primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

_STANDING = text("state <> 'REJECTED'")

registrations = Table(
    "registrations",
    metadata,
    Column("registration_id", String(66), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("company", String(200), nullable=False),
    Column("wallet", String(42), nullable=False),
    Column("profile", Text),
    Column("provider", String(32)),
    Column("site", String(255)),
    Column("template", String(255)),
    Column("nullifier", String(66)),
    Column("proof_digest", String(66)),
    Column("state", String(16), nullable=False),
    Column("proven_at", BigInteger),
    Column("requested_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger),
    Column("review", Text, nullable=False, server_default="[]"),
    Index(None, "state", "requested_at"),
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

audit = Table(
    "audit",
    metadata,
    Column(
        "entry_id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("at", BigInteger, nullable=False),
    Column("role", String(16), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("via", String(32), nullable=False),
    # Whose affair it is: that developer may read the entry too.
    Column("tenant", String(64)),
    Column("action", String(32), nullable=False),
    Column("target", String(128), nullable=False),
    Column("detail", Text),
    Index(None, "tenant", "entry_id"),
)
