"""How fast one decision at a time is over HTTP, its row in the log before the answer.

`/v1/route` with prompts of 60 words, on ``serve --local`` and on one Ray Serve replica behind
HAProxy, each beside the bare app in the same seconds: runs alternate, and each ratio is of
neighbours. The load generator shares the machine with the server.
"""

from __future__ import annotations

import argparse
import statistics

from load import Load, post, prompts
from report import at_least, show, spread
from servers import Server, daemon, hammer_with_cpu, script, stop_on_sigterm

AIMS = {"local": {1: 0.6, 8: 0.6, 32: 0.6}, "ray": {8: 0.25, 32: 0.25}}
COLUMNS = (
    "server, connections",
    "decisions/s",
    "p50 ms",
    "p99 ms",
    "bare/s",
    "bare p50",
    "ratio",
    "aim",
    "of aim",
    "verdict",
    "CPU us",
    "bare CPU",
    "CPU ratio",
    "errors",
)


def compare(mode: str, server: Server, bare: Server, *, seconds: float, repeats: int) -> None:
    """Measure `server` and `bare` in turn and print a table."""
    requests = [post("/v1/route", {"prompt": prompt}) for prompt in prompts(512)]
    rows = []
    for concurrency in (1, 8, 32):
        ours: list[Load] = []
        theirs: list[Load] = []
        our_cpu: list[float] = []
        bare_cpu: list[float] = []
        for _ in range(repeats):
            for target, loads, cpu in ((bare, theirs, bare_cpu), (server, ours, our_cpu)):
                load, spent = hammer_with_cpu(
                    target, requests, concurrency=concurrency, seconds=seconds
                )
                loads.append(load)
                cpu.append(spent)
        ratios = [a.rps / b.rps for a, b in zip(ours, theirs, strict=True)]
        aim = AIMS[mode].get(concurrency)
        ratio = statistics.median(ratios)
        verdict = (str(aim), *at_least(ratio, aim)) if aim is not None else ("", "", "")
        rows.append(
            (
                f"{mode}, {concurrency}",
                spread([load.rps for load in ours]),
                f"{statistics.median(load.percentile(50) for load in ours):.2f}",
                f"{statistics.median(load.percentile(99) for load in ours):.1f}",
                spread([load.rps for load in theirs]),
                f"{statistics.median(load.percentile(50) for load in theirs):.2f}",
                spread(ratios, ".2f"),
                *verdict,
                f"{statistics.median(our_cpu):.0f}",
                f"{statistics.median(bare_cpu):.0f}",
                f"{statistics.median(b / a for a, b in zip(our_cpu, bare_cpu, strict=True)):.2f}",
                str(sum(load.failed for load in ours + theirs)),
            )
        )
    show(
        f"/v1/route, 60-word prompts, every decision logged ({mode})",
        COLUMNS,
        rows,
        f"medians of {repeats} runs of {seconds:g} s; the yardstick has no log; CPU: of all "
        "threads and processes of a server, per request",
    )


def main() -> None:
    """Run the modes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--local-only", action="store_true", help="the same as --no-ray")
    given = parser.parse_args()
    stop_on_sigterm()
    modes = ["local", "ray"] if given.ray and not given.local_only else ["local"]
    for mode in modes:
        with script("bare.py") as bare, daemon(local=mode == "local") as server:
            compare(mode, server, bare, seconds=given.seconds, repeats=given.repeats)


if __name__ == "__main__":
    main()
