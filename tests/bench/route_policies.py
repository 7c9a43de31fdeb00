"""What a policy costs a request: `/v1/route` under each policy, side by side in the same seconds.

Daemons with the log on, `--local`, one per policy, take turns; each ratio is of neighbours. They
are measured cold, when Thompson's law has every model in the race, and after outcomes that leave
few of them. The load generator shares the machine with the servers.
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import ExitStack

from load import Answer, Load, drive, post, prompts, run
from report import at_least, show, spread
from servers import Server, daemon, hammer_with_cpu, model_specs, stop_on_sigterm

AIM = 0.8
OUTCOMES = 1_000
COLUMNS = (
    "policy, models, state, connections",
    "decisions/s",
    "p50 ms",
    "linucb/s",
    "ratio",
    "aim",
    "of aim",
    "verdict",
    "CPU us",
    "linucb CPU us",
)


def teach(server: Server) -> None:
    """Give outcomes for decisions of its own: a model's place in the list is its quality."""
    calls = [post("/v1/route", {"prompt": text}) for text in prompts(OUTCOMES, words=20, seed=4)]
    kept: list[Answer] = []
    run(drive(server.port, calls, concurrency=8, keep=kept))
    names = [model["name"] for model in model_specs(8)]
    feedback = []
    for answer in kept:
        row = json.loads(answer.body)
        quality = 0.5 + 0.05 * names.index(row["model"])
        fields = {"quality": quality, "cost_usd": 2.0 * row["reserved_cost_usd"] / 16.0}
        feedback.append(post("/v1/feedback", {"decision_id": row["decision_id"]} | fields))
    load = run(drive(server.port, feedback, concurrency=8))
    if load.failed:
        raise RuntimeError(f"{load.failed} posts of feedback failed")


def compare(
    policy: str, models: int, state: str, ours: Server, base: Server, given: argparse.Namespace
) -> list[tuple[str, ...]]:
    """Measure both in turn and return a row per number of connections."""
    requests = [post("/v1/route", {"prompt": prompt}) for prompt in prompts(512)]
    rows = []
    for concurrency in (1, 8, 32):
        loads: dict[Server, list[Load]] = {ours: [], base: []}
        cpu: dict[Server, list[float]] = {ours: [], base: []}
        for _ in range(given.repeats):
            for server in (base, ours):
                load, spent = hammer_with_cpu(
                    server, requests, concurrency=concurrency, seconds=given.seconds
                )
                loads[server].append(load)
                cpu[server].append(spent)
        pairs = zip(loads[ours], loads[base], strict=True)
        ratios = [a.rps / b.rps for a, b in pairs]
        aim = (str(AIM), *at_least(statistics.median(ratios), AIM)) if policy == "thompson" else ()
        rows.append(
            (
                f"{policy}, {models}, {state}, {concurrency}",
                spread([load.rps for load in loads[ours]]),
                f"{statistics.median(load.percentile(50) for load in loads[ours]):.2f}",
                spread([load.rps for load in loads[base]]),
                spread(ratios, ".2f"),
                *(aim or ("", "", "")),
                f"{statistics.median(cpu[ours]):.0f}",
                f"{statistics.median(cpu[base]):.0f}",
            )
        )
    return rows


def main() -> None:
    """Run every policy that is asked for beside LinUCB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", action="append", help="default: thompson")
    parser.add_argument("--models", type=int, default=3, help="size of the pool, 3 to 8")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    stop_on_sigterm()
    rows: list[tuple[str, ...]] = []
    for policy in given.policy or ["thompson"]:
        with ExitStack() as stack:
            servers = []
            for name in (policy, "linucb"):
                pools = {"default": {"models": model_specs(given.models), "policy": name}}
                servers.append(stack.enter_context(daemon(local=True, config={"pools": pools})))
            rows += compare(policy, given.models, "cold", *servers, given)
            for server in servers:
                teach(server)
            rows += compare(policy, given.models, "taught", *servers, given)
    show(
        "/v1/route by policy, 60-word prompts, --local, every decision logged",
        COLUMNS,
        rows,
        f"medians of {given.repeats} runs of {given.seconds:g} s; CPU: of all threads of a server",
    )


if __name__ == "__main__":
    main()
