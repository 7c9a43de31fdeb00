"""Pairs of answers and who won, out of full information: what `banditroute prior fit` takes."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import pyarrow
import pyarrow.parquet

from sim.data.formats import load


def main() -> None:
    """Write one row for each prompt and pair of models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", metavar="DATA", help="a data set of full information")
    parser.add_argument("out", type=Path, metavar="OUT.parquet")
    given = parser.parse_args()
    data = load(given.data).complete()
    rows = [
        {
            "prompt": prompt,
            "model_a": data.models[a],
            "model_b": data.models[b],
            "winner": "a" if row[a] > row[b] else "b" if row[b] > row[a] else "tie",
        }
        for prompt, row in zip(data.prompts, data.quality, strict=True)
        for a, b in combinations(range(len(data.models)), 2)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), given.out)
    print(f"{given.out}: {len(rows):,} pairs")


if __name__ == "__main__":
    main()
