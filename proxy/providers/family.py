"""What a wire family is: the registry's unit.

Owns: the shape of a family and of its path rules. Must never: know a vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from re import Pattern
from typing import Any, NamedTuple, Protocol

from detection.types import Usage
from proxy.providers.base import Endpoint, Headers, Refusal, RefusalResponse, RequestFacts
from proxy.providers.reading import Reader


class Rule(NamedTuple):
    """One path, recognised.

    ``path`` is searched in the raw path; its group ``model`` names the model.
    ``methods`` empty means any. ``providers`` empty means any.
    """

    path: Pattern[str]
    endpoint: str
    methods: frozenset[str] = frozenset()
    metered: bool = True
    streams: bool = False
    providers: frozenset[str] = frozenset()


Turn = tuple[str, tuple[Any, ...]]
"""The last thing that a request says, by kind and parts: what its fingerprint is made of."""


class SessionParser(Protocol):
    """Reads a WebSocket session, both ways. Bytes of the connection after the upgrade."""

    def feed_client(self, data: bytes) -> None:
        """What the client sent."""

    def feed_server(self, data: bytes) -> None:
        """What the provider sent."""

    def close(self, *, complete: bool) -> Usage:
        """The sum over the session."""


class Shape(NamedTuple):
    """An answer of our own."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Family:
    """A wire family: how it is recognised, read and answered."""

    wire: str
    rules: tuple[Rule, ...]
    reader: Callable[[Endpoint, RequestFacts], Reader]
    refusal: Callable[[Refusal], RefusalResponse]
    stream_error: Callable[[Endpoint, Refusal], bytes]
    turn: Callable[[dict[str, Any]], Turn | None] = field(default=lambda _: None)
    facts: Callable[[dict[str, Any]], dict[str, Any]] = field(default=lambda _: {})
    #: Do its streams come as one JSON array unless the query says ``alt=sse``?
    array_streams: bool = False


__all__ = ["Family", "Headers", "Rule", "SessionParser", "Shape", "Turn"]
