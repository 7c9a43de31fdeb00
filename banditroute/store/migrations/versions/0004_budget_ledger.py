"""The budget ledger: cached totals, pacing of budgets, and what a lease was charged

Revision ID: 0004
Revises: 0002
Create Date: 2026-11-27

"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "decisions", sa.Column("lambda_gain", sa.Float(), server_default="0", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("decisions", "lambda_gain")
