"""Feedback on pairs and sessions, and resets that happen once

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-26

"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(length=200), nullable=False),
        sa.Column("decision_id", sa.String(length=32), nullable=False),
        sa.Column("preferred_over", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=True),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
        sa.UniqueConstraint(
            "decision_id",
            "preferred_over",
            "key",
            name=op.f("uq_comparisons_decision_id_preferred_over_key"),
        ),
    )
    op.create_index(op.f("ix_comparisons_preferred_over"), "comparisons", ["preferred_over"])
    op.create_table(
        "session_feedback",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(length=200), nullable=False),
        sa.Column("session_id", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=True),
        sa.Column("quality", sa.Float(), nullable=False),
        sa.Column("decisions", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_feedback")),
        sa.UniqueConstraint(
            "pool", "session_id", "key", name=op.f("uq_session_feedback_pool_session_id_key")
        ),
    )
    op.add_column("events", sa.Column("policy", sa.String(length=80), nullable=True))
    op.add_column("events", sa.Column("trigger_seq", sa.BigInteger(), nullable=True))
    op.create_index(
        op.f("ix_events_pool_policy_arm_trigger_seq"),
        "events",
        ["pool", "policy", "arm", "trigger_seq"],
        unique=True,
    )
    op.create_index(op.f("ix_decisions_pool_session_id"), "decisions", ["pool", "session_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_decisions_pool_session_id"), "decisions")
    op.drop_index(op.f("ix_events_pool_policy_arm_trigger_seq"), "events")
    # Older folds know no comparisons. Columns are dropped in place: a table made anew would lose
    # the counter that keeps positions from being given out twice.
    op.execute("DELETE FROM events WHERE kind = 'comparison'")
    op.drop_column("events", "trigger_seq")
    op.drop_column("events", "policy")
    op.drop_table("session_feedback")
    op.drop_table("comparisons")
