"""What a connection to a provider is given, and whom it tells.

Owns: the two sides of :mod:`proxy.http.upstream` as others see them. Must never: do anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from proxy.http.connector import Connector
from proxy.http.deadlines import Deadlines
from proxy.http.failures import Failure
from proxy.http.headers import RawHeaders, Scanned
from proxy.http.known_answer import KnownAnswers
from proxy.http.outbox import Outbox
from proxy.http.relay import RawTaker
from proxy.http.settings import UpstreamSettings

if TYPE_CHECKING:
    from proxy.http.upstream import UpstreamConnection


class AnswerHandler(Protocol):
    """Who receives an answer. All calls come from the event loop, never nested."""

    method: str

    def on_connected(self, connection: UpstreamConnection) -> None: ...
    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None: ...
    def on_answer_data(
        self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]
    ) -> None: ...
    def raw_taker(self) -> RawTaker | None: ...
    def broke(self, error: BaseException) -> None: ...
    def on_switched(self, headers: RawHeaders, rest: bytes) -> None: ...
    def on_upstream_failure(self, failure: Failure) -> None: ...
    def on_upstream_paused(self) -> None: ...
    def on_upstream_resumed(self) -> None: ...


class Home(Protocol):
    """The pool that a connection belongs to."""

    loop: asyncio.AbstractEventLoop
    settings: UpstreamSettings
    deadlines: Deadlines
    outbox: Outbox
    connector: Connector
    answers: KnownAnswers

    def discard(self, connection: UpstreamConnection) -> None: ...
    def put_back(self, connection: UpstreamConnection, seconds: float) -> None: ...
