"""All tables of the database. The migrations create them; a test checks that both agree.

Times are integer microseconds since the epoch. Money in the ledger is integer nano-dollars; other
costs and prices are US dollars. Arrays are raw little-endian bytes, never pickles.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite assigns row numbers only to a column whose type is exactly INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")

pools = Table(
    "pools",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("options", Text, nullable=False),  # JSON object; defaults are left out
    Column("revision", Integer, nullable=False),  # grows with each change of models or prices
    Column("created_at", BigInteger, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("max_output_tokens", Integer),
    Column("context_length", Integer),
    Column("capabilities", Text, nullable=False),  # JSON list
    Column("draining", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("pool", "name"),
)

prices = Table(
    "prices",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("input_price", Float, nullable=False),  # US dollars per million tokens
    Column("output_price", Float, nullable=False),
    Column("source", String(20), nullable=False),  # file | api
    Column("valid_from", BigInteger, nullable=False),
    Index(None, "pool", "model", "valid_from"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),  # sorts by time: the index grows at its end
    Column("pool", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("policy", String(80), nullable=False),  # identity of the policy
    Column("version", BigInteger, nullable=False),  # log position of the snapshot
    Column("embedder", String(80), nullable=False),
    Column("model", String(200), nullable=False),  # the chosen model
    Column("propensity", Float, nullable=False),
    Column("u", Float, nullable=False),  # the uniform draw
    Column("w_quality", Float, nullable=False),
    Column("w_cost", Float, nullable=False),
    Column("w_latency", Float, nullable=False),
    Column("tau_cost", Float, nullable=False),
    Column("lambda_low", Float, nullable=False),  # prices of money, quality units per US dollar
    Column("lambda_high", Float, nullable=False),
    Column("lambda_mix", Float, nullable=False),  # probability of lambda_low
    Column("lambda_gain", Float, nullable=False, server_default="0"),  # see pacing/price.py
    Column("spend_rate", Float, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("max_output_tokens", Integer, nullable=False),
    Column("input_tokens", Float, nullable=False),
    Column("cost_prior", Float, nullable=False),  # of the chosen model, before learning
    Column("input_cost", Float, nullable=False),
    Column("arms", Text, nullable=False),  # JSON list: names of the K models
    Column("prices", Text, nullable=False),  # JSON list of price row ids
    Column("verdict", LargeBinary, nullable=False),  # uint8[K], index into decide/reasons.py
    Column("features", LargeBinary, nullable=False),  # float32[d]
    Column("score_names", Text, nullable=False),  # comma-separated
    Column("scores", LargeBinary, nullable=False),  # float32[S, K]
    Column("estimates", LargeBinary, nullable=False),  # float32[2, K]: mean, std
    Column("terms", LargeBinary, nullable=False),  # float64[5, K]: see decision_row.TERMS
    Column("prompt_hash", String(32)),
    Column("session_id", String(200)),
    Column("task", String(200)),
    Column("tags", Text),  # JSON object
    Column("request_id", String(200)),
    Column("overridden_by", String(200)),  # the model that answered instead of the chosen one
    Column("cancelled_at", BigInteger),  # None: not cancelled
    Index(None, "pool", "expires_at"),
    Index(None, "pool", "session_id"),
)

events = Table(
    "events",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("created_at", BigInteger, nullable=False),  # for people; a fold must not read it
    Column("payload", Text),  # JSON; of a comparison: the other decision; None for other outcomes
    Column("decision_id", String(32)),
    Column("arm", String(200)),
    Column("embedder", String(80)),
    Column("features", LargeBinary),
    Column("field", String(10)),
    Column("value", Float),
    Column("cost", Float),  # US dollars, if known when the event was written
    Column("propensity", Float),
    Column("w_quality", Float),
    Column("w_cost", Float),
    Column("w_latency", Float),
    Column("cost_prior", Float),
    Column("input_cost", Float),
    Column("policy", String(80)),  # of a reset: identity of the policy that raised the alarm
    Column("trigger_seq", BigInteger),  # of a reset: position of the event that raised the alarm
    UniqueConstraint("decision_id", "field"),  # each field of a decision is learned once
    Index(None, "pool", "kind"),
    Index(None, "pool", "policy", "arm", "trigger_seq", unique=True),  # each alarm resets once
    sqlite_autoincrement=True,
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("decision_id", String(32), nullable=False),
    Column("key", String(200), nullable=False),
    Column("source", String(200)),
    Column("quality", Float),
    Column("cost_nano", BigInteger),  # as sent, or computed from the tokens
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("latency_ms", Float),
    Column("model", String(200)),
    Column("digest", String(32), nullable=False),  # of the payload, see feedback.Post.digest
    Column("status", String(12), nullable=False),  # accepted | superseded | late
    Column("received_at", BigInteger, nullable=False),
    UniqueConstraint("decision_id", "key"),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("decision_id", String(32), nullable=False),
    Column("preferred_over", String(32), nullable=False),
    Column("key", String(200), nullable=False),
    Column("source", String(200)),
    Column("status", String(12), nullable=False),  # accepted | late
    Column("received_at", BigInteger, nullable=False),
    UniqueConstraint("decision_id", "preferred_over", "key"),
    Index(None, "preferred_over"),
)

session_feedback = Table(
    "session_feedback",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("session_id", String(200), nullable=False),
    Column("key", String(200), nullable=False),
    Column("source", String(200)),
    Column("quality", Float, nullable=False),
    Column("decisions", Integer, nullable=False),  # number of decisions that learned the quality
    Column("received_at", BigInteger, nullable=False),
    UniqueConstraint("pool", "session_id", "key"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("pool", String(200), primary_key=True),
    Column("policy_seq", BigInteger, primary_key=True),  # log position of the policy's start
    Column("seq", BigInteger, primary_key=True),
    Column("identity", String(80), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

learner_leases = Table(
    "learner_leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(80), nullable=False),
    Column("epoch", BigInteger, nullable=False),  # grows with each change of the holder
    Column("expires_at", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("pool", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("cap_nano", BigInteger, nullable=False),
    Column("period", String(20), nullable=False),  # total | hour | day | month | rolling
    Column("rolling_s", BigInteger),
    Column("scope_tag", String(200)),  # None: applies to every request
    Column("scope_value", String(200)),
    Column("request_ceiling_nano", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("pacing", String(20), nullable=False, server_default="history"),
    Column("expected_requests", BigInteger),  # per window
    Column("rate_nano", BigInteger),  # nano-dollars per request
    Column("quality_floor", Float),
    UniqueConstraint("pool", "name"),
    sqlite_autoincrement=True,  # ids are never reused
)

reservations = Table(
    "reservations",
    metadata,
    Column("decision_id", String(32), primary_key=True),
    Column("budget_id", BigInteger, primary_key=True),
    Column("lease_id", BigInteger),
    Column("window_start", BigInteger, nullable=False),  # in a rolling window: the decision's time
    Column("reserved_nano", BigInteger, nullable=False),
    Column("settled_nano", BigInteger),
    Column("overrun_nano", BigInteger, nullable=False, server_default="0"),
    Column("status", String(12), nullable=False),  # open | settled | cancelled
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "budget_id", "window_start"),
    sqlite_with_rowid=False,  # one B-tree less to write per decision
)

leases = Table(
    "leases",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("budget_id", BigInteger, nullable=False),
    Column("holder", String(200), nullable=False),
    Column("boot", String(40), nullable=False),  # boot id of the holder's machine
    Column("window_start", BigInteger, nullable=False),  # 0 for a rolling window
    Column("amount_nano", BigInteger, nullable=False),
    Column("drawn_nano", BigInteger, nullable=False),  # reserved by all decisions
    Column("requests", BigInteger, nullable=False),  # number of decisions that reserved
    Column("ended_nano", BigInteger, nullable=False),  # reserved by settled and cancelled ones
    Column("returned_nano", BigInteger, nullable=False),  # part of ended_nano that was not spent
    Column("opened_at", BigInteger, nullable=False),
    Column("reclaim_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Index(None, "budget_id", "window_start", "holder", unique=True),
    Index(None, "closed_at"),
    sqlite_autoincrement=True,  # no reused ids: a deleted lease must refuse
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("endpoint", String(40), primary_key=True),
    Column("digest", String(32), nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "created_at"),
)
