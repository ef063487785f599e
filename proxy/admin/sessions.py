"""Signed tickets for browsers: sessions, one-time sign-in codes, widget links.

Owns: making and checking them, and the count of failed attempts. Must never:
store a credential, or accept a ticket of one purpose for another.

Tickets are stateless, so that a session outlives a restart and works on every
replica that has the same admin token: an HMAC-SHA-256 over purpose and payload
with a key derived from that token. A new admin token ends all sessions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import orjson

Clock = Callable[[], float]


class Tickets:
    """Signs and reads small payloads, each for one purpose.

    Parameters
    ----------
    secret
        The admin token; only a key derived from it is kept.
    clock
        Epoch seconds.
    """

    def __init__(self, secret: str, clock: Clock) -> None:
        self._key = hmac.digest(b"tokenweir tickets v1", secret.encode(), "sha256")
        self._clock = clock

    def issue(self, purpose: str, payload: Mapping[str, Any], seconds: float) -> str:
        """A ticket good for ``seconds``; URL-safe text."""
        body = orjson.dumps({**payload, "until": round(self._clock() + seconds, 3)})
        return f"{_encode(body)}.{_encode(self._sign(purpose, body))}"

    def read(self, purpose: str, ticket: str) -> dict[str, Any] | None:
        """The payload of a genuine, unexpired ticket of this purpose, else ``None``."""
        if len(ticket) > 4096:
            return None
        body_text, _, signature_text = ticket.partition(".")
        try:
            body, signature = _decode(body_text), _decode(signature_text)
        except ValueError:
            return None
        if not hmac.compare_digest(signature, self._sign(purpose, body)):
            return None
        payload: dict[str, Any] = orjson.loads(body)
        return payload if payload["until"] > self._clock() else None

    def _sign(self, purpose: str, body: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\x00" + body, "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(
        text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
    )


class Revoked:
    """Tickets ended before their time (sign-out), until they would have ended."""

    def __init__(self, clock: Clock, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._ends: dict[bytes, float] = {}

    def add(self, ticket: str, until: float) -> None:
        """End ``ticket``; forgotten after ``until``."""
        now = self._clock()
        if len(self._ends) >= self._most:
            self._ends = {digest: end for digest, end in self._ends.items() if end > now}
        self._ends[_digest(ticket)] = until

    def __contains__(self, ticket: str) -> bool:
        return bool(self._ends) and _digest(ticket) in self._ends


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class SignInCodes:
    """Codes of the link printed at start: each signs in once, soon."""

    def __init__(self, clock: Clock, good_for_seconds: float = 900.0) -> None:
        self._clock = clock
        self._good_for_seconds = good_for_seconds
        self._codes: dict[bytes, float] = {}

    def issue(self) -> str:
        """A fresh code; at most 32 are good at a time."""
        code = secrets.token_urlsafe(24)
        while len(self._codes) >= 32:
            del self._codes[next(iter(self._codes))]
        self._codes[_digest(code)] = self._clock() + self._good_for_seconds
        return code

    def redeem(self, code: str) -> bool:
        """Whether the code is good; it is spent by asking."""
        until = self._codes.pop(_digest(code), None)
        return until is not None and until > self._clock()


class Attempts:
    """Failed attempts per client address in a minute, bounded in memory."""

    def __init__(self, clock: Clock, most_per_minute: int, most_clients: int = 4096) -> None:
        self._clock = clock
        self._most = most_per_minute
        self._most_clients = most_clients
        self._failed: dict[str, tuple[float, int]] = {}

    def blocked(self, client: str) -> bool:
        """Whether this client has failed too often in the running minute."""
        started, count = self._failed.get(client, (0.0, 0))
        return count >= self._most and self._clock() - started < 60.0

    def failed(self, client: str) -> None:
        """Count a failure."""
        now = self._clock()
        started, count = self._failed.get(client, (now, 0))
        if now - started >= 60.0:
            started, count = now, 0
        if client not in self._failed and len(self._failed) >= self._most_clients:
            del self._failed[next(iter(self._failed))]
        self._failed[client] = (started, count + 1)
