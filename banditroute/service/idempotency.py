"""Calls that carry an ``Idempotency-Key``: logged once, and answered with the same bytes again.

A key is kept as a hash, and so is the payload, keyed by the caller's own key. Who reads the
database can therefore not test a guess at a prompt.
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


@dataclass(frozen=True, slots=True)
class OnceKey:
    """What identifies a call that must take effect once.

    Attributes
    ----------
    name : str
        Hash of the caller's key.
    endpoint : str
        The endpoint, since one key may be used at several.
    payload : str
        Digest of the requests: it tells a retry from another call.
    """

    name: str
    endpoint: str
    payload: str

    @classmethod
    def of(cls, key: str, endpoint: str, requests: Sequence[RouteRequest]) -> OnceKey:
        """Return the identity of a call.

        Parameters
        ----------
        key : str
            The caller's ``Idempotency-Key``.
        endpoint : str
            A name of the endpoint.
        requests : sequence of RouteRequest
            The payload.
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
    now: int,
) -> list[tuple[Answer, bool]]:
    """Log the decisions of calls; one whose key is known gets its first answer instead.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    keys : sequence of (OnceKey or None)
        Of each call; None: it has no key.
    answers : sequence of (bytes or RouterFault)
        What each call is answered if it is new.
    entries : sequence of sequences of Entry
        The decisions of each call.
    now : int
        Microseconds since the epoch.

    Returns
    -------
    list of (answer, bool)
        The answer to each call, and whether its decisions are in the log now.
    """
    known = recall(connection, [key.name for key in keys if key is not None], now_us=now)
    logged: list[Entry] = []
    fresh: list[tuple[str, str, str, bytes, int]] = []
    results: list[tuple[Answer, bool]] = []
    for key, answer, decided in zip(keys, answers, entries, strict=True):
        kept = known.get((key.name, key.endpoint)) if key is not None else None
        if key is not None and kept is not None:
            results.append((kept[1] if kept[0] == key.payload else _conflict(), False))
            continue
        results.append((answer, True))
        logged += decided
        if key is not None and decided and isinstance(answer, bytes):
            fresh.append((key.name, key.endpoint, key.payload, answer, now))
            known[key.name, key.endpoint] = key.payload, answer
    log_decisions(connection, logged)
    remember(connection, fresh)
    return results


def _conflict() -> IdempotencyConflict:
    return IdempotencyConflict(
        "this Idempotency-Key was used with another payload", param="Idempotency-Key"
    )
