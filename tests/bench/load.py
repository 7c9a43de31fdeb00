"""A load generator that is lighter than any server here: raw HTTP/1.1 over loopback, on uvloop.

Requests are bytes built beforehand; a connection asks its next one as soon as the last is
answered, or, with a rate, when it is due. Only what an answer needs is parsed: status, length.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import uvloop

T = TypeVar("T")
HOST = "127.0.0.1"
ANSWER_S = 60.0
SYLLABLES = [a + b for a in "bdfklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]


class Answer(NamedTuple):
    """An answer to request `number`; times are of `time.perf_counter`."""

    number: int
    due: float
    received: float
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """What came back in the measured window; only answers with status 200 count as `answered`."""

    seconds: float
    answered: int
    failed: int
    latencies_ms: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def rps(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds if self.seconds > 0 else float("nan")

    def percentile(self, q: float) -> float:
        """Return a percentile of the latency in milliseconds."""
        return float(np.percentile(self.latencies_ms, q)) if self.latencies_ms.size else np.nan


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, answered: Callable[[Connection, int, bytes], None]) -> None:
        self._answered = answered
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._size = self._needed = self._head = self._status = 0
        self.number, self.due = -1, 0.0
        self.error: BaseException | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, request: bytes, number: int, due: float) -> None:
        """Send a request that was due at `due`."""
        self.number, self.due = number, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if not self._needed:
            if len(self._parts) > 1:
                self._parts = [data := b"".join(self._parts)]
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return
            self._status = int(data[9:12])
            self._head = end + 4
            head = data[:end].lower()
            at = head.find(b"content-length:")
            if at < 0:
                raise ValueError("an answer without content-length")
            self._needed = self._head + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if self._size < self._needed:
            return
        body = b"".join(self._parts)[self._head :]
        self._parts.clear()
        self._size = self._needed = 0
        self._answered(self, self._status, body)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closing:
            self.error = error or ConnectionError("the server closed a connection")
            self._answered(self, 0, b"")

    def close(self) -> None:
        """Hang up."""
        self.closing = True
        self._transport.close()


async def drive(
    port: int,
    requests: Iterable[bytes],
    *,
    concurrency: int,
    seconds: float | None = None,
    warmup: float = 0.0,
    rate: float | None = None,
    keep: list[Answer] | None = None,
) -> Load:
    """Send `requests` until they end, or for `seconds`.

    Parameters
    ----------
    port : on loopback.
    requests : each is sent once; `itertools.cycle` makes them endless.
    concurrency : number of connections.
    seconds : length of the measured window, which begins after `warmup` seconds.
    rate : requests per second, sent when due (latency counts from then); None is closed loop.
    keep : is given every answer.
    """
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    pending = iter(enumerate(requests))
    busy, failed, drained = 0, 0, False
    latencies: list[float] = []
    waiting: deque[tuple[int, bytes, float]] = deque()
    idle: list[Connection] = []
    began = time.perf_counter()
    measure_from = began + warmup
    until = measure_from + seconds if seconds is not None else float("inf")
    last = began

    def send_next(connection: Connection, now: float) -> None:
        nonlocal busy, drained
        if rate is not None:
            if waiting:
                index, request, due = waiting.popleft()
                busy += 1
                connection.ask(request, index, due)
            else:
                idle.append(connection)
            return
        item = next(pending, None) if now < until and not drained else None
        if item is None:
            drained = True
            if busy == 0 and not finished.done():
                finished.set_result(None)
            return
        busy += 1
        connection.ask(item[1], item[0], now)

    def answered(connection: Connection, status: int, body: bytes) -> None:
        nonlocal busy, failed, last
        now = time.perf_counter()
        busy -= 1
        if connection.error is not None:
            if not finished.done():
                finished.set_exception(connection.error)
            return
        if measure_from <= now <= until:
            last = now
            if status == 200:
                latencies.append(now - connection.due)
            else:
                failed += 1
        if keep is not None:
            keep.append(Answer(connection.number, connection.due, now, status, body))
        send_next(connection, now)
        if rate is not None and drained and busy == 0 and not waiting and not finished.done():
            finished.set_result(None)

    async def pace(per_second: float) -> None:
        nonlocal drained, busy
        for index, request in pending:
            due = began + index / per_second
            if due > until:
                break
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            if idle:
                busy += 1
                idle.pop().ask(request, index, due)
            else:
                waiting.append((index, request, due))
        drained = True
        if busy == 0 and not waiting and not finished.done():
            finished.set_result(None)

    connections = []
    for _ in range(concurrency):
        _, connection = await loop.create_connection(lambda: Connection(answered), HOST, port)
        connections.append(connection)
    began = last = time.perf_counter()
    measure_from = began + warmup
    until = measure_from + seconds if seconds is not None else float("inf")
    pacing = None
    try:
        for connection in connections:
            send_next(connection, began)
        if rate is not None:
            pacing = asyncio.create_task(pace(rate))
        allowed = (until - began if seconds is not None else 600.0) + ANSWER_S
        await asyncio.wait_for(finished, allowed)
    finally:
        if pacing is not None:
            pacing.cancel()
        for connection in connections:
            connection.close()
    window = seconds if seconds is not None else last - measure_from
    return Load(window, len(latencies), failed, np.array(latencies) * 1e3)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a uvloop of its own."""
    return uvloop.run(work)


def hammer(port: int, requests: Sequence[bytes], *, concurrency: int, seconds: float) -> Load:
    """Send `requests` over and over, closed loop, after a short warm-up."""
    endless = itertools.cycle(requests)
    return run(drive(port, endless, concurrency=concurrency, seconds=seconds, warmup=0.3))


def post(path: str, content: Any) -> bytes:
    """Return the bytes of a POST of `content` as JSON."""
    body = json.dumps(content, separators=(",", ":")).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()


def prompts(count: int, *, words: int = 60, seed: int = 0) -> Iterator[str]:
    """Yield prompts of made-up words, whose frequencies fall off as those of a language do."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, size=4_000)
    vocabulary = ["".join(rng.choice(SYLLABLES, size=n)) for n in lengths]
    share = 1.0 / np.arange(1, len(vocabulary) + 1)
    share /= share.sum()
    for _ in range(count):
        chosen = rng.choice(len(vocabulary), size=words, p=share)
        text = " ".join(vocabulary[i] for i in chosen)
        yield text.capitalize() + "?"
