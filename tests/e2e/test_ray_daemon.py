from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from support.daemon_process import (
    COMMAND,
    Daemon,
    check_log,
    daemon,
    driving,
    environment,
    free_port,
    members,
    policy,
    title,
    until,
    verify,
)

from banditroute.serve import foreground, haproxy
from banditroute.serve.foreground import StartError
from banditroute.store.engine import open_engine
from banditroute.store.tables import events, leases, reservations

START_S = 90.0
PATIENT = ("--retry-for", "90", "--timeout", "5")


def own_ports() -> dict[str, str]:
    """Keep clear of another daemon on this host."""
    return {name: str(free_port()) for name in haproxy.ports()}


def learner_of(running: Daemon) -> int | None:
    found = [p for p in members(running.process.pid) if title(p).startswith("ray::LearnerActor")]
    return found[0] if found else None


def replicas_of(running: Daemon) -> list[int]:
    found = [p for p in members(running.process.pid) if "ServeReplica" in title(p)]
    return [p for p in found if "Ingress" in title(p)]


def left_over(ports: list[int]) -> list[int]:
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                taken.append(port)
    return taken


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kill_the_learner_then_the_daemon_in_the_middle_of_drives(
    tmp_path: Path, planted: Path
) -> None:
    port, env = free_port(), own_ports()
    acked: list[str] = []
    with daemon(tmp_path, port=port, env=env) as first:
        text = first.greeted(START_S)
        assert text.startswith(f"banditroute serves {first.url} after ")
        assert all(number in text for number in env.values())
        before = learner_of(first)
        assert before is not None
        with driving(tmp_path, planted, first.url, "--timeout", "5") as drive:
            drive.reach(100)
            os.kill(before, signal.SIGKILL)
            report = drive.report()
        # Replicas decide from their last snapshot, feedback is stored: nobody noticed.
        assert (report["errors"], report["retries"], report["decisions"]) == (0, 0, 600)
        assert learner_of(first) not in (None, before)
        acked += drive.ids()
        check_log(tmp_path, first.url, "planted", acked)

        with driving(tmp_path, planted, first.url, *PATIENT, "--seed", "1") as drive:
            drive.reach(150)
            first.kill()
            with daemon(tmp_path, port=port, env=env) as second:
                report = drive.report(START_S)
                second.greeted(START_S)
                assert report["errors"] == 0 and report["decisions"] == 600
                assert report["retries"] > 0
                acked += drive.ids()
                assert len(acked) == 1_200
                check_log(tmp_path, second.url, "planted", acked)
                began = time.monotonic()
                assert second.interrupt() == 0
                assert time.monotonic() - began < 15.0
                until(lambda: not members(second.process.pid), seconds=10.0, what="the end of all")
                assert left_over([port, *map(int, env.values())]) == []
    assert second.text.rstrip().endswith("Ctrl-C stops it.")
    for running in (first, second):
        assert "Traceback" not in running.text and "INFO" not in running.text
    assert "sound                                yes" in verify(tmp_path, "planted")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kill_one_of_two_replicas_on_postgresql_in_the_middle_of_a_drive(
    tmp_path: Path, planted: Path, postgres_empty: str
) -> None:
    url, env = postgres_empty, own_ports()
    flags = ("--db", url, "--replicas", "2")
    with daemon(tmp_path, *flags, port=free_port(), env=env) as running:
        text = running.greeted(START_S)
        assert "database postgresql+psycopg://postgres:***@/" in text
        before = until(
            lambda: len(found := replicas_of(running)) == 2 and found, seconds=30.0, what="replicas"
        )
        acked: list[str] = []
        with driving(tmp_path, planted, running.url, *PATIENT) as drive:
            drive.reach(150)
            os.kill(before[0], signal.SIGKILL)
            report = drive.report(START_S)
            assert report["errors"] == 0 and report["decisions"] == 600
            acked += drive.ids()
        assert len(acked) == 600
        check_log(tmp_path, running.url, "planted", acked, url)
        # Both of them decide, feedback reaches either, and each knows what the other was told.
        after = until(
            lambda: len(found := replicas_of(running)) == 2 and found,
            seconds=60.0,
            what="a replica",
        )
        assert before[0] not in after
        with driving(tmp_path, planted, running.url, *PATIENT, "--seed", "1") as drive:
            assert drive.report(START_S)["errors"] == 0
            acked += drive.ids()
        check_log(tmp_path, running.url, "planted", acked, url)
        check_cap(running.url, url)
        engine = open_engine(url)
        with engine.connect() as connection:
            kinds = select(events.c.pool, func.count()).where(events.c.kind == "policy_started")
            started = connection.execute(kinds.group_by(events.c.pool)).all()
        engine.dispose()
        assert sorted(map(tuple, started)) == [("default", 1), ("planted", 1)]
        assert running.interrupt() == 0
    assert "Traceback" not in running.text
    assert "sound                                yes" in verify(tmp_path, "planted", url)


def check_cap(daemon_url: str, database: str) -> None:
    """Spend a budget to its end through both replicas, and hold the ledger to what was paid."""
    cap, ask = 2.0, {"prompt": "Why is the sky blue?", "models": ["large"]}
    with httpx.Client(base_url=daemon_url, timeout=30.0) as http:
        terms = {"name": "both", "cap_usd": cap, "pacing": "none"}
        assert http.post("/v1/budgets", json=terms).status_code == 201
        time.sleep(5.0)  # the other replica sees it within a second, or later under load

        def spend(number: int) -> tuple[int, int]:
            refused = paid = 0
            for i in range(60):
                answer = http.post("/v1/route", json=ask)
                if answer.status_code == 429:
                    # Perhaps until the answers of others are settled, or what is idle comes back.
                    assert answer.json()["error"]["budget"]["name"] == "both"
                    refused += 1
                    time.sleep(0.2)
                    continue
                assert answer.status_code == 200, answer.text
                sent = {"decision_id": answer.json()["decision_id"], "cost_usd": 0.01 + i / 1e6}
                assert http.post("/v1/feedback", json=sent).json() == {"status": "accepted"}
                paid += 10_000_000 + 1_000 * i
            return refused, paid

        with ThreadPoolExecutor(16) as pool:
            told = list(pool.map(spend, range(16)))
        shown = http.get("/v1/budgets/both").json()
    refused, paid = (sum(column) for column in zip(*told, strict=True))
    assert refused > 0 and 0.9 * cap < shown["settled_usd"] <= cap
    assert round(shown["settled_usd"] * 1e9) == paid and shown["reserved_usd"] == 0.0
    engine = open_engine(database)
    with engine.connect() as connection:
        holders = connection.execute(select(func.count(leases.c.holder.distinct()))).scalar_one()
        settled = connection.execute(select(func.sum(reservations.c.settled_nano))).scalar_one()
    engine.dispose()
    assert (holders, settled) == (2, paid)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_driver_takes_its_proxy_along(tmp_path: Path) -> None:
    """Else the port would be taken for ever, by a proxy with nothing behind it."""
    port, env = free_port(), own_ports()
    with daemon(tmp_path, "--db", "sqlite:///log.db", port=port, env=env) as first:
        first.greeted(START_S)
        assert (tmp_path / "log.db").exists()
        first.process.kill()
        first.process.wait(10.0)
        until(
            lambda: not left_over([port, *map(int, env.values())]),
            seconds=20.0,
            what="the ports to be free",
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_ends_when_told_while_it_starts_and_while_it_serves(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with daemon(tmp_path, port=free_port(), env=own_ports()) as running:
            if number == signal.SIGINT:
                until(lambda: len(members(running.process.pid)) > 4, seconds=30.0, what="Ray")
                assert running.interrupt() == 0, running.text
            else:
                running.greeted(START_S)
                assert policy(running.url, "default")["learned"] == 0
                running.process.terminate()
                assert running.process.wait(30.0) == 0, running.text
            until(lambda: not members(running.process.pid), seconds=10.0, what="the end of all")
        for noise in ("Traceback", "INFO", "WARNING"):
            assert noise not in running.text


@pytest.mark.slow
def test_the_application_can_be_built_for_deployment(tmp_path: Path) -> None:
    script = (
        "from ray import serve\n"
        "from banditroute.serve import build_app\n"
        "app = build_app({'database': 'sqlite:///x.db', 'pools': {'p': {'tau_cost': 0.5}}})\n"
        "assert isinstance(app, serve.Application)\n"
        "from banditroute.serve import app\n"
        "assert isinstance(app, serve.Application)\n"
        "for wrong in ({'databse': 'x'}, {'database': 'sqlite:///x.db', 'replicas': 2}):\n"
        "    try:\n"
        "        build_app(wrong)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.returncode == 0, done.stderr
    assert "'database'" in done.stdout and "replicas: 2 replicas cannot share" in done.stdout
    assert not (tmp_path / "x.db").exists()


@pytest.mark.slow
def test_serve_build_takes_it(tmp_path: Path) -> None:
    tool = str(Path(COMMAND).parent / "serve")
    done = subprocess.run(
        [tool, "build", "banditroute.serve:app", "-o", "built.yaml"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.returncode == 0, done.stderr
    assert "name: Ingress" in (tmp_path / "built.yaml").read_text()


def test_two_replicas_on_sqlite_are_refused_with_the_reason(tmp_path: Path) -> None:
    with daemon(tmp_path, "--replicas", "2", port=free_port()) as running:
        assert running.process.wait(30.0) == 2
    assert running.text.startswith("banditroute: replicas: 2 replicas cannot share SQLite")
    assert not (tmp_path / "log.db").exists()


def test_a_start_waits_for_its_port_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        threading.Timer(0.2, taken.close).start()
        foreground._wait_for_port("127.0.0.1", port, 30.0)
    assert f"port {port} is taken; waiting up to 30 s" in capsys.readouterr().out


def test_a_second_daemon_is_told_which_port_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "PORT_WAIT_S", 0.0)
    monkeypatch.setattr(haproxy, "installed", lambda: True)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", str(free_port()))
        monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", str(taken.getsockname()[1]))
        with pytest.raises(StartError, match="set RAY_SERVE_HAPROXY_METRICS_PORT"):
            foreground._proxy()


def test_without_haproxy_the_start_says_what_serves_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(haproxy, "installed", lambda: False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    assert "HAProxy binary is missing" in foreground._proxy()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


@pytest.mark.skipif(not haproxy.installed(), reason="HAProxy comes for Linux only")
def test_haproxy_runs_behind_its_leash(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    found = haproxy.environment(folder)
    ports = {found.pop(f"RAY_SERVE_FALLBACK_PROXY_{kind}_PORT") for kind in ("HTTP", "GRPC")}
    assert len(ports) == 2 and {"8500", "9500"}.isdisjoint(ports)
    assert {Path(value).is_relative_to(folder) for value in found.values()} == {True}
    done = subprocess.run(
        [found["RAY_SERVE_HAPROXY_BINARY_PATH"], "-v"],
        capture_output=True,
        text=True,
        timeout=20.0,
    )
    assert done.returncode == 0 and "HAProxy version" in done.stdout
