"""Sessions, scoped keys, reviews, audit, uploads, leases: what a console and its operators need"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STANDING = "state <> 'REJECTED'"
_KEPT = (
    "registration_id, name, company, wallet, provider, site, template, nullifier, proof_digest,"
    " state, proven_at, requested_at, decided_at"
)


def upgrade() -> None:
    """Create and extend; what is there stays."""
    _nodes()
    _jobs()
    _uploads()
    _keys()
    _registrations(required=False)
    op.create_table(
        "audit",
        sa.Column(
            "entry_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            nullable=False,
            autoincrement=True,
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("via", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64)),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.String(128), nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("entry_id", name="pk_audit"),
    )
    op.create_index("ix_audit_tenant_entry_id", "audit", ["tenant", "entry_id"])


def _set_aside(table: str) -> None:
    """Rename a table, so that another can take its name."""
    op.rename_table(table, f"old_{table}")
    if op.get_bind().dialect.name == "postgresql":  # there an index keeps its name
        op.execute(f"ALTER INDEX pk_{table} RENAME TO pk_old_{table}")


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(20), nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("assigned_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_nodes"),
    )
    op.execute("INSERT INTO nodes SELECT node_id, updated_at, 0 FROM profiles")


def _jobs() -> None:
    op.add_column("jobs", sa.Column("route", sa.Text))
    op.add_column("jobs", sa.Column("started_at", sa.BigInteger))
    op.add_column("jobs", sa.Column("ended_at", sa.BigInteger))
    op.create_index("ix_jobs_tenant_created_at_job_id", "jobs", ["tenant", "created_at", "job_id"])
    op.create_index("ix_jobs_state_checked_at", "jobs", ["state", "checked_at"])
    op.create_table(
        "leases",
        sa.Column("job_id", sa.String(66), nullable=False),
        sa.Column("node_id", sa.String(20), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_leases"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], "fk_leases_job_id"),
    )
    op.create_index("uq_leases_node_id", "leases", ["node_id"], unique=True)
    op.execute(
        "INSERT INTO leases SELECT job_id, node_id, checked_at FROM jobs WHERE state = 'RUNNING'"
    )
    op.drop_index("uq_jobs_running", "jobs")
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_requests"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], "fk_requests_job_id"),
    )
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.String(66), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("bundle_digest", sa.String(66)),
        sa.Column("fault", sa.Text),
        sa.PrimaryKeyConstraint("upload_id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_tenant", "uploads", ["tenant"])
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(66), nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "offset", name="pk_upload_parts"),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.upload_id"], "fk_upload_parts_upload_id"),
    )


def _keys() -> None:
    _set_aside("api_keys")
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("issued", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    )
    op.execute(
        "INSERT INTO api_keys SELECT substr(digest, 1, 16), digest, role, subject, 'first',"
        " CASE role WHEN 'node' THEN 'read work' ELSE 'manage read submit' END, 0, NULL, NULL,"
        " CASE WHEN registration_id IS NULL THEN 0 ELSE 1 END FROM old_api_keys"
    )
    op.drop_table("old_api_keys")
    op.create_index("uq_api_keys_digest", "api_keys", ["digest"], unique=True)
    op.create_index("ix_api_keys_role_subject", "api_keys", ["role", "subject"])
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("wallet", sa.String(42), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "challenges",
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("nonce", name="pk_challenges"),
    )
    op.create_index("ix_challenges_expires_at", "challenges", ["expires_at"])


def _registrations(*, required: bool) -> None:
    """The table anew: what a proof says is there only where there was a proof."""
    for column in ("name", "wallet", "nullifier"):
        op.drop_index(f"uq_registrations_{column}", "registrations")
    _set_aside("registrations")
    op.create_table(
        "registrations",
        sa.Column("registration_id", sa.String(66), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("company", sa.String(200), nullable=False),
        sa.Column("wallet", sa.String(42), nullable=False),
        *([] if required else [sa.Column("profile", sa.Text)]),
        sa.Column("provider", sa.String(32), nullable=not required),
        sa.Column("site", sa.String(255), nullable=not required),
        sa.Column("template", sa.String(255), nullable=not required),
        sa.Column("nullifier", sa.String(66), nullable=not required),
        sa.Column("proof_digest", sa.String(66), nullable=not required),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("proven_at", sa.BigInteger, nullable=not required),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("decided_at", sa.BigInteger),
        *([] if required else [sa.Column("review", sa.Text, nullable=False, server_default="[]")]),
        sa.PrimaryKeyConstraint("registration_id", name="pk_registrations"),
    )
    where = " WHERE nullifier IS NOT NULL" if required else ""
    op.execute(f"INSERT INTO registrations ({_KEPT}) SELECT {_KEPT} FROM old_registrations{where}")  # noqa: S608
    op.drop_table("old_registrations")
    for column in ("name", "wallet", "nullifier"):
        op.create_index(
            f"uq_registrations_{column}",
            "registrations",
            [column],
            unique=True,
            sqlite_where=sa.text(STANDING),
            postgresql_where=sa.text(STANDING),
        )
    if not required:
        op.create_index(
            "ix_registrations_state_requested_at", "registrations", ["state", "requested_at"]
        )


def downgrade() -> None:
    """Back to what 0002 knew; what it had no place for goes."""
    op.drop_table("audit")
    op.drop_index("ix_registrations_state_requested_at", "registrations")
    _registrations(required=True)
    for name in ("challenges", "sessions"):
        op.drop_table(name)
    op.drop_index("ix_api_keys_role_subject", "api_keys")
    op.drop_index("uq_api_keys_digest", "api_keys")
    _set_aside("api_keys")
    op.create_table(
        "api_keys",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("registration_id", sa.String(66)),
        sa.PrimaryKeyConstraint("digest", name="pk_api_keys"),
    )
    op.execute(
        "INSERT INTO api_keys SELECT digest, role, subject, NULL FROM old_api_keys"
        " WHERE revoked_at IS NULL AND role <> 'operator'"
    )
    for name in ("old_api_keys", "upload_parts", "uploads", "requests", "leases", "nodes"):
        op.drop_table(name)
    op.drop_index("ix_artifacts_sha256", "artifacts")
    op.drop_index("ix_jobs_state_checked_at", "jobs")
    op.drop_index("ix_jobs_tenant_created_at_job_id", "jobs")
    op.create_index(
        "uq_jobs_running",
        "jobs",
        ["node_id"],
        unique=True,
        sqlite_where=sa.text("state = 'RUNNING'"),
        postgresql_where=sa.text("state = 'RUNNING'"),
    )
    for column in ("ended_at", "started_at", "route"):
        op.drop_column("jobs", column)
