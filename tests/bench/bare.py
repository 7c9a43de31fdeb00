"""The yardstick: what one uvicorn worker can do with the same features and kernel, and no log.

The same embedder and the same LinUCB snapshot as the daemon's, score, law and draw through
`policies`, JSON in and out. No schema beyond what is read, no eligibility, no metrics, no store.
"""

from __future__ import annotations

import argparse
import secrets
from typing import Any

import numpy as np
import uvicorn
from load import HOST
from pydantic_core import from_json, to_json
from servers import POOLS, VECTOR_DIM, model_specs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from banditroute.features.embedding import FEATURES, make_embedder
from policies import Outcome, make_policy
from policies.laws import draw


class Bare:
    """One pool: an embedder and a policy that has learned a little."""

    def __init__(self, embedder: str, count: int) -> None:
        dim = VECTOR_DIM if embedder == "precomputed" else None
        self.embedder = make_embedder(embedder, dim=dim)
        self.policy = make_policy("linucb", dim=FEATURES)
        self.rng = np.random.default_rng(0)
        self.names = [model["name"] for model in model_specs(count)]
        self.penalty = np.array([m["output_price"] for m in model_specs(count)]) / 100.0
        for name in self.names:
            self.policy.add_arm(name)
        rows = self.rng.standard_normal((200, FEATURES)).astype(np.float32)
        self.policy.learn(
            Outcome(i, "", self.names[i % count], x, "quality", 0.5) for i, x in enumerate(rows)
        )
        self.policy.refresh()

    def decide(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return an answer to each request."""
        n, k = len(requests), len(self.names)
        prompts = [request.get("prompt") for request in requests]
        vectors = None
        if "embedding" in requests[0]:
            vectors = np.array([request["embedding"] for request in requests], dtype=np.float32)
        x = self.embedder.features(prompts, vectors)
        preference = np.broadcast_to(np.array([0.7, 0.3, 0.0]), (n, 3))
        scores = self.policy.score(x, preference)
        penalty = np.broadcast_to(self.penalty, (n, k))
        pmf = self.policy.pmf(scores, np.ones((n, k), dtype=np.bool_), penalty)
        chosen = draw(pmf, self.rng.random(n))
        propensity = pmf[np.arange(n), chosen]
        return [
            {"decision_id": secrets.token_hex(16), "model": self.names[arm], "propensity": p}
            for arm, p in zip(chosen.tolist(), propensity.tolist(), strict=True)
        ]


def make_app() -> Starlette:
    """Return the app with the pools of the benchmarks."""
    pools = {name: Bare(*pool) for name, pool in POOLS.items()}

    async def route(request: Request) -> Response:
        asked = from_json(await request.body())
        (answer,) = pools[asked.get("pool", "default")].decide([asked])
        return Response(to_json(answer), media_type="application/json")

    async def route_batch(request: Request) -> Response:
        asked = from_json(await request.body())["requests"]
        answers = pools[asked[0].get("pool", "default")].decide(asked)
        return Response(to_json({"decisions": answers}), media_type="application/json")

    async def ready(request: Request) -> Response:
        return Response(b'{"status":"ready"}', media_type="application/json")

    return Starlette(
        routes=[
            Route("/v1/route", route, methods=["POST"]),
            Route("/v1/route/batch", route_batch, methods=["POST"]),
            Route("/readyz", ready),
        ]
    )


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(make_app(), host=HOST, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
