from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from support.daemon_process import (
    check_log,
    daemon,
    driving,
    environment,
    free_port,
    policy,
    verify,
)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


def test_the_printed_lines_work_as_pasted(tmp_path: Path) -> None:
    if shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("needs bash and curl")
    with daemon(tmp_path, "--local", port=free_port()) as running:
        lines = [line for line in running.greeted().splitlines() if line.startswith("curl ")]
        assert len(lines) == 2
        done = subprocess.run(
            ["bash", "-e", "-c", "\n".join(lines)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30.0,
        )
        assert done.returncode == 0, done.stderr
        decided = json.loads((tmp_path / "decision.json").read_text())
        assert decided["model"] in ("small", "medium", "large")
        assert done.stdout.endswith('{"status":"accepted"}')
        shown = httpx.get(f"{running.url}/v1/decisions/{decided['decision_id']}").json()
        assert shown["feedback"][0]["quality"] == 0.9
        assert running.interrupt() == 0
    assert "Traceback" not in running.text


def test_kill_and_restart_in_the_middle_of_a_drive(tmp_path: Path, planted: Path) -> None:
    port = free_port()
    flags = ("--retry-for", "60", "--timeout", "5")
    with daemon(tmp_path, "--local", port=port) as first:
        first.greeted()
        with driving(tmp_path, planted, first.url, *flags) as drive:
            drive.reach(150)
            first.kill()
            with daemon(tmp_path, "--local", port=port) as second:
                drive.reach(300)
                second.kill()
                with daemon(tmp_path, "--local", port=port) as third:
                    report = drive.report()
                    assert report["errors"] == 0 and report["decisions"] == 600
                    assert report["retries"] > 0
                    assert len(drive.ids()) == 600
                    check_log(tmp_path, third.url, "planted", drive.ids())
                    assert third.interrupt() == 0
                    assert "Traceback" not in third.text
    assert "sound                                yes" in verify(tmp_path, "planted")


def test_a_drive_learns_and_a_second_start_goes_on(tmp_path: Path, planted: Path) -> None:
    port = free_port()
    with daemon(tmp_path, "--local", port=port) as first:
        first.greeted()
        with driving(tmp_path, planted, first.url) as drive:
            report = drive.report()
        assert report["errors"] == 0 and report["retries"] == 0
        assert report["feedback"] == {"accepted": 600}
        assert report["last_third"]["difference"] > 0.03
        before = policy(first.url, "planted")
        assert before["learned"] == 1_200
        assert first.interrupt(signal.SIGINT) == 0
    with daemon(tmp_path, "--local", port=port) as second:
        text = second.greeted()
        assert "pool default: policy thompson-" in text
        after = policy(second.url, "planted")
        for name in ("policy", "version", "learned", "digest", "tau_cost"):
            assert after[name] == before[name]
        models = httpx.get(f"{second.url}/v1/models", params={"pool": "planted"}).json()["data"]
        assert {model["name"] for model in models} == {"small", "coder", "large"}
        assert second.interrupt(signal.SIGTERM) == 0
    for running in (first, second):
        assert "Traceback" not in running.text and "ERROR" not in running.text


def test_an_end_before_the_first_answer_is_as_quick(tmp_path: Path) -> None:
    with daemon(tmp_path, "--local", port=free_port()) as running:
        running.greeted()
        began = time.monotonic()
        assert running.interrupt() == 0
        assert time.monotonic() - began < 5.0


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with daemon(tmp_path, "--local", port=port) as running:
            assert running.process.wait(60.0) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in running.text
    assert "Traceback" not in running.text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--replicas", "2"), "replicas: --local is one process"),
        (("--db", "sqlite://"), "database: an in-memory SQLite database"),
        (("--db", "nosuch://x"), "database: "),
        (("--db", "sqlite:////nosuch/dir/x.db"), "database: "),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    with daemon(tmp_path, "--local", *flags, port=free_port()) as running:
        assert running.process.wait(60.0) == 2
    assert running.text.startswith(f"banditroute: {said}"), running.text
    assert "Traceback" not in running.text
