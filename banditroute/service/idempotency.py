"""Calls with an ``Idempotency-Key``: logged once, and answered with the same bytes again.

The key is stored as a hash, and the payload as a hash that is keyed by the caller's key. So a
reader of the database, who does not know the caller's key, cannot test a guess at a prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from banditroute.contract.schemas import RouteRequest
from banditroute.core.errors import IdempotencyConflict, RouterFault
from banditroute.store.idempotency import recall, remember
from banditroute.store.log import Entry, log_decisions

Answer = bytes | RouterFault
"""What a call is answered: the JSON body, or the fault of a single request."""


@dataclass(frozen=True, slots=True)
class OnceKey:
    """What identifies a call that must take effect once.

    Attributes
    ----------
    name : str
        Hash of the caller's key.
    endpoint : str
        The endpoint, because one key may be used at several endpoints.
    payload : str
        Digest of the requests, to tell a retry from another call.
    """

    name: str
    endpoint: str
    payload: str

    @classmethod
    def of(cls, key: str, endpoint: str, requests: Sequence[RouteRequest]) -> OnceKey:
        """Return what identifies a call.

        Parameters
        ----------
        key : str
            The caller's ``Idempotency-Key``.
        endpoint : str
            Name of the endpoint.
        requests : sequence of RouteRequest
            The requests.
        """
        name = hashlib.blake2b(key.encode(), digest_size=32).hexdigest()
        secret = hashlib.sha256(key.encode()).digest()
        payload = hashlib.blake2b(key=secret, digest_size=16)
        for request in requests:
            payload.update(request.model_dump_json(exclude_unset=True).encode())
        return cls(name, endpoint, payload.hexdigest())


def log_once(
    connection: Connection,
    keys: Sequence[OnceKey | None],
    answers: Sequence[Answer],
    entries: Sequence[Sequence[Entry]],
    *,
    now_us: int,
) -> list[tuple[Answer, bool]]:
    """Log the decisions of calls; a call whose key is stored gets the stored answer instead.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    keys : sequence of (OnceKey or None)
        The key of each call; None if it has none.
    answers : sequence of (bytes or RouterFault)
        The answer to each call if it is new.
    entries : sequence of sequences of Entry
        The decisions of each call.
    now_us : int
        The time.

    Returns
    -------
    list of (answer, bool)
        The answer to each call, and whether its decisions are in the log now.
    """
    stored = recall(connection, [key.name for key in keys if key is not None], now_us=now_us)
    to_log: list[Entry] = []
    to_remember: list[tuple[str, str, str, bytes, int]] = []
    results: list[tuple[Answer, bool]] = []
    for key, answer, decided in zip(keys, answers, entries, strict=True):
        first = stored.get((key.name, key.endpoint)) if key is not None else None
        if key is not None and first is not None:
            payload, first_answer = first
            results.append((first_answer if payload == key.payload else _conflict(), False))
            continue
        results.append((answer, True))
        to_log += decided
        if key is not None and decided and isinstance(answer, bytes):
            to_remember.append((key.name, key.endpoint, key.payload, answer, now_us))
            stored[key.name, key.endpoint] = key.payload, answer
    log_decisions(connection, to_log)
    remember(connection, to_remember)
    return results


def _conflict() -> IdempotencyConflict:
    return IdempotencyConflict(
        "this Idempotency-Key was used with another payload", param="Idempotency-Key"
    )
