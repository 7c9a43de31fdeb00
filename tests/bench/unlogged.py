"""The daemon with a log that forgets: ``serve --local`` whose decision rows are made, then dropped.

Everything else is the daemon's, the writer thread and its commits included, so the difference to
the real one is what the database costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest.mock import patch

import uvicorn
from load import HOST

from banditroute.serve import compose
from banditroute.serve.local import local_app
from banditroute.settings import load_settings


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--db", required=True)
    given = parser.parse_args()
    settings = load_settings(given.config, database=given.db)
    with patch.object(compose, "log_decisions", lambda connection, rows: None):
        app = local_app(settings)
        uvicorn.run(app, host=HOST, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
