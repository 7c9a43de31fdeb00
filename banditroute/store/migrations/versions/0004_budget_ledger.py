"""The budget ledger, prices of money with a threshold, and cancelled decisions

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-27

"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _budgets(*more: sa.Column, **options: bool) -> None:
    op.create_table(
        "budgets",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("cap_nano", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=20), nullable=False),
        sa.Column("rolling_s", sa.BigInteger(), nullable=True),
        sa.Column("scope_tag", sa.String(length=200), nullable=True),
        sa.Column("scope_value", sa.String(length=200), nullable=True),
        sa.Column("request_ceiling_nano", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint("pool", "name", name=op.f("uq_budgets_pool_name")),
        **options,
    )


def _leases(*more: sa.Column, **options: bool) -> None:
    op.create_table(
        "leases",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("budget_id", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        *more,
        sa.Column("window_start", sa.BigInteger(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("reclaim_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        **options,
    )


def _reservations(*more: sa.Column, **options: bool) -> None:
    op.create_table(
        "reservations",
        sa.Column("decision_id", sa.String(length=32), nullable=False),
        sa.Column("budget_id", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.BigInteger(), nullable=True),
        sa.Column("window_start", sa.BigInteger(), nullable=False),
        sa.Column("reserved_nano", sa.BigInteger(), nullable=False),
        sa.Column("settled_nano", sa.BigInteger(), nullable=True),
        *more,
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "budget_id", name=op.f("pk_reservations")),
        **options,
    )
    op.create_index(
        op.f("ix_reservations_budget_id_window_start"), "reservations", ["budget_id", "window_start"]
    )


def upgrade() -> None:
    op.add_column(
        "decisions", sa.Column("lambda_gain", sa.Float(), server_default="0", nullable=False)
    )
    op.add_column("decisions", sa.Column("cancelled_at", sa.BigInteger(), nullable=True))
    # No version before this one wrote a row to these tables.
    op.drop_table("budgets")
    _budgets(
        sa.Column("pacing", sa.String(length=20), server_default="history", nullable=False),
        sa.Column("expected_requests", sa.BigInteger(), nullable=True),
        sa.Column("rate_nano", sa.BigInteger(), nullable=True),
        sa.Column("quality_floor", sa.Float(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.drop_table("leases")
    _leases(
        sa.Column("boot", sa.String(length=40), nullable=False),
        sa.Column("drawn_nano", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("ended_nano", sa.BigInteger(), nullable=False),
        sa.Column("returned_nano", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_leases_budget_id_window_start_holder"),
        "leases",
        ["budget_id", "window_start", "holder"],
        unique=True,
    )
    op.create_index(op.f("ix_leases_closed_at"), "leases", ["closed_at"])
    op.drop_table("reservations")
    _reservations(
        sa.Column("overrun_nano", sa.BigInteger(), server_default="0", nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    # What is spent means nothing to a version that does not hold budgets.
    op.drop_table("reservations")
    _reservations()
    op.drop_table("leases")
    _leases(sa.Column("epoch", sa.BigInteger(), nullable=False))
    op.create_index(op.f("ix_leases_budget_id_closed_at"), "leases", ["budget_id", "closed_at"])
    op.drop_table("budgets")
    _budgets()
    op.drop_column("decisions", "cancelled_at")
    op.drop_column("decisions", "lambda_gain")
