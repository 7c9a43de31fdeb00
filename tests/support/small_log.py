"""A small log for tests: a pool whose decisions come from the real router and encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, select

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import ModelSpec, PoolOptions
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.fitting.warm_start import fit
from banditroute.learn.learner import rebuild
from banditroute.learn.prior import Prior
from banditroute.service.feedback import Feedback, store_feedback
from banditroute.store import pools
from banditroute.store.comparisons import Preferred
from banditroute.store.decision_row import Note, as_rows, encode
from banditroute.store.engine import WRITER
from banditroute.store.feedback import FeedbackResult, Post
from banditroute.store.log import Entry, Log, append_event, log_decisions
from banditroute.store.tables import events
from policies import full_params

DIM = 5
TTL = 1_000_000
MODELS = (
    ModelSpec(name="small", input_price=0.1, output_price=0.5),
    ModelSpec(name="large", input_price=3.0, output_price=15.0),
    ModelSpec(name="medium", input_price=1.0, output_price=2.0, max_output_tokens=100),
)


def prior_of(*arms: str, level: float = 0.9, n: float = 8.0, embedder: str = "words") -> Prior:
    """Return a prior worth `n` outcomes of quality `level` for each arm."""
    x = np.random.default_rng(3).normal(size=(40, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    labels = {arm: np.full(40, level) for arm in arms}
    return Prior("sums", embedder, fit(x, labels, n_effective=n))


class Book:
    """One pool in a database, with a clock that the test sets."""

    def __init__(
        self,
        engine: Engine,
        *,
        pool: str = "default",
        policy: str = "linucb",
        seed: int = 0,
        models: Sequence[ModelSpec] = MODELS,
        **options: Any,
    ) -> None:
        self.engine, self.log, self.pool = engine, Log(engine), pool
        self.options = PoolOptions(**options)
        self.rng = np.random.default_rng(seed)
        self.now = 1_000
        self.count = 0
        with self.begin() as connection:
            pools.ensure_pool(connection, pool, options={}, now_us=self.now)
            for spec in models:
                pools.add_model(connection, pool, spec, source="api", now_us=self.now)
        self.start(policy)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with (
            self.engine.connect().execution_options(**WRITER) as connection,
            connection.begin(),
        ):
            yield connection

    def append(self, kind: str, **payload: Any) -> int:
        with self.begin() as connection:
            return append_event(
                connection, pool=self.pool, kind=kind, payload=payload, now_us=self.now
            )

    def start(self, policy: str, *, embedder: str = "words", **params: object) -> int:
        policy_identity = PolicyIdentity(
            policy=policy,
            params=full_params(policy, params),
            embedder=embedder,
            dim=DIM,
            tau_cost_usd=0.01,
            tau_latency_ms=1_000.0,
        )
        return self.append("policy_started", **policy_identity.payload())

    def router(self, *, until: int | None = None) -> Router:
        built = rebuild(self.log, self.pool, until=until)
        assert built is not None
        with self.engine.connect() as connection:
            models = pools.load_pools(connection)[self.pool][2]
        snapshot = built[1].snapshot()
        return Router(options=self.options, snapshot=snapshot, models=models, rng=self.rng)

    def requests(self, n: int, **limits: Any) -> RequestBatch:
        x = self.rng.normal(size=(n, DIM)).astype(np.float32)
        x[:, -1] = 1.0
        weights = self.rng.dirichlet([4.0, 2.0, 1.0], size=n)
        tokens = np.ceil(self.rng.uniform(1.0, 2_000.0, size=n))
        return RequestBatch(
            features=x, preference=weights, input_tokens=tokens, input_bound=4.0 * tokens, **limits
        )

    def decide(
        self, n: int, *, session: str | None = None, prompt: str | None = None, **limits: Any
    ) -> tuple[Decisions, list[str]]:
        """Decide and log `n` requests; return the decisions and the ids of those with a model."""
        decided = self.router().decide(self.requests(n, **limits))
        names = [f"{self.pool}-{self.count + i:06d}" for i in range(n)]
        notes = [Note(id=name, prompt_hash=prompt, session_id=session) for name in names]
        self.count += n
        encoded = encode(
            decided, notes, pool=self.pool, created_at_us=self.now, expires_at_us=self.now + TTL
        )
        with self.begin() as connection:
            log_decisions(connection, [Entry(row) for row in as_rows(encoded)])
        return decided, list(encoded["id"])

    def post(self, *posts: Feedback) -> list[FeedbackResult]:
        with self.begin() as connection:
            return store_feedback(connection, posts, now_us=self.now)

    def send(self, *posts: Feedback) -> list[str]:
        return [one.status for one in self.post(*posts)]

    def compare(self, rng: np.random.Generator) -> None:
        """Decide on a prompt with two models and send that one is preferred."""
        names = rng.permutation([model.name for model in MODELS[:2]]).tolist()
        prompt = f"duel {self.count}"
        won, lost = (self.decide(1, prompt=prompt, models=[{name}])[1][0] for name in names)
        assert self.send(Preferred(won, lost, "judge")) == ["accepted"]

    def feed(self, n: int) -> list[str]:
        """Decide `n` requests and send feedback on all; return their ids."""
        _, ids = self.decide(n)
        values = self.rng.random((n, 3)).tolist()
        self.send(
            *(
                Post(one, "default", quality=q, cost_usd=c / 100, latency_ms=1_000 * s)
                for one, (q, c, s) in zip(ids, values, strict=True)
            )
        )
        return ids

    def events(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(events).order_by(events.c.seq)))

    def digest(self, *, until: int | None = None, checkpoints: bool = False) -> str:
        built = rebuild(self.log, self.pool, until=until, checkpoints=checkpoints)
        assert built is not None
        return built[1].digest()
