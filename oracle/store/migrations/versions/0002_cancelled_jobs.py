"""Until when a cancelled job is payable"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from oracle.store.tables import Unsigned64

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cancelled_until", Unsigned64(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("cancelled_until")
