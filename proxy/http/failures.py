"""How an upstream can fail a call.

Owns: the closed set of reasons, and what a client is told of each. Must never: decide
what happens to the call.
"""

from __future__ import annotations

from enum import StrEnum

from proxy.providers.base import Refusal


class Failure(StrEnum):
    """Why an upstream gave no (whole) answer. A closed set: metrics use it."""

    REFUSED = "refused"
    DNS = "dns"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    POOL_FULL = "pool_full"
    QUEUE_TIMEOUT = "queue_timeout"
    RESET = "reset"
    STALE = "stale"
    BAD_FRAMING = "bad_framing"
    RESPONSE_TIMEOUT = "response_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TRUNCATED = "truncated"

    @property
    def status(self) -> int:
        """The gateway status that tells it to the client."""
        if self in (Failure.CONNECT_TIMEOUT, Failure.RESPONSE_TIMEOUT, Failure.IDLE_TIMEOUT):
            return 504
        return 503 if self in (Failure.POOL_FULL, Failure.QUEUE_TIMEOUT) else 502

    def refusal(self, upstream: str, authority: str) -> Refusal:
        """What a client is told that had no answer yet."""
        kind = {502: "bad_gateway", 503: "overloaded", 504: "timeout"}[self.status]
        return Refusal(kind, f"upstream {upstream} ({authority}): {self.value}")
