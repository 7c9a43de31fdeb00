"""For all tests: BLAS at one thread, as the daemon runs it, before numpy is loaded anywhere."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
