"""How long until the first decision is answered, and how much memory that takes, in both modes.

Time runs from the start of the command on an empty database. Memory is the proportional set size
of every process it started, one second after the answer; and again after some work.
"""

from __future__ import annotations

import argparse
import statistics
import time

from load import hammer, post, prompts
from report import at_most, show, spread
from servers import READY_S, daemon, script, stop_on_sigterm

AIMS = {"local": (0.5, 150.0), "ray": (11.0, 1_000.0)}


def start(mode: str) -> tuple[float, float, float, int]:
    """Return seconds to the first answer, MB then, MB after work, and processes."""
    requests = [post("/v1/route", {"prompt": prompt}) for prompt in prompts(64)]
    server = script("bare.py") if mode == "bare" else daemon(local=mode == "local", wait=False)
    with server:
        seconds = server.wait_for(requests[0], READY_S["ray" if mode == "ray" else "local"])
        time.sleep(1.0)
        early, processes = server.pss_mb(), len(server.pids())
        hammer(server.port, requests, concurrency=8, seconds=2.0)
        return seconds, early, server.pss_mb(), processes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    stop_on_sigterm()
    rows = []
    for mode in ("bare", "local", "ray") if given.ray else ("bare", "local"):
        times, early, late, counts = zip(*(start(mode) for _ in range(given.repeats)), strict=True)
        verdicts = ["", "", "", "", "", ""]
        if mode in AIMS:
            aims = AIMS[mode]
            verdicts = [
                f"{aims[0]:g} s",
                *at_most(statistics.median(times), aims[0]),
                f"{aims[1]:,.0f} MB",
                *at_most(statistics.median(early), aims[1]),
            ]
        rows.append(
            (
                mode,
                spread(times, ".2f"),
                *verdicts[:3],
                spread(early, ",.0f"),
                *verdicts[3:],
                spread(late, ",.0f"),
                f"{statistics.median(counts):.0f}",
            )
        )
    show(
        "from the command to the first answered /v1/route",
        (
            "mode",
            "seconds",
            "aim",
            "of aim",
            "verdict",
            "MB (PSS)",
            "aim",
            "of aim",
            "verdict",
            "MB after work",
            "processes",
        ),
        rows,
        f"medians of {given.repeats}",
    )


if __name__ == "__main__":
    main()
