"""What the HTTP path needs of the rest, as protocols.

Owns: the seams between the pump and admission, metering and keys. Must never:
import any of those; `app.py` puts the real ones in.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from detection.types import Observation, Series, Usage
from proxy.context import RequestContext
from proxy.gate_decision import Decision
from proxy.http.identity import NameCap
from proxy.http.outbox import Outbox
from proxy.http.pool import Pools
from proxy.http.routing import Router
from proxy.http.settings import ServerSettings
from proxy.http.signing import Signer
from proxy.http.websocket import Peer, Tunnel
from proxy.providers.base import Headers, Refusal


class Admission(Protocol):
    """The gate, as the pump sees it."""

    def admit(self, ctx: RequestContext) -> Decision: ...
    def progress(self, decision: Decision, output_bytes: int) -> Refusal | None: ...
    def wait(
        self, ctx: RequestContext, decision: Decision, then: Callable[[Decision], None]
    ) -> None: ...
    def drop(self, decision: Decision) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credential a request brings.

    ``key`` is the fingerprint. For a key that the proxy issued, ``virtual_key`` is
    its id and ``refusal`` says why it may not be used now.
    """

    key: str
    virtual_key: str | None = None
    project: str | None = None
    owner: str | None = None
    refusal: Refusal | None = None


class Keys(Protocol):
    """Knows credentials by their fingerprint."""

    def identify(self, credential: str) -> Caller: ...


class Finished(NamedTuple):
    """One call, over. ``outcome`` is ``""`` for a whole answer, else why it ended.

    ``usage`` is ``None`` where the provider was never asked.
    """

    ctx: RequestContext
    decision: Decision | None
    status: int
    usage: Usage | None
    outcome: str
    base_url: str
    answer_headers: Headers
    model_sent: str | None
    ttft_seconds: float | None
    latency_seconds: float


class Meter(Protocol):
    """Takes every finished call: prices, counts, judges. Never raises, never awaits."""

    def record(self, call: Finished) -> Observation | None:
        """Record the call, before its client sees the end; ``None`` where that fails."""

    def judge(self, call: Finished, observation: Observation) -> None:
        """Settle and judge a recorded call, after its client was sent the end."""


class Histogram(Protocol):
    """Something that counts values into buckets."""

    def observe(self, value: float) -> None: ...


class Runtime(Protocol):
    """Numbers of the path itself, incremented in place."""

    inflight: int
    streams: int
    connections: int
    client_aborts: int
    streams_cut: int

    @property
    def overhead_seconds(self) -> Histogram: ...
    @property
    def rejected(self) -> MutableMapping[str, int]: ...
    @property
    def upstream_failures(self) -> MutableMapping[str, int]: ...


@dataclass(slots=True)
class Services:
    """All that a connection uses. One per worker."""

    settings: ServerSettings
    router: Router
    pools: Pools
    signer: Signer
    keys: Keys
    gate: Admission
    meter: Meter
    runtime: Runtime
    names: NameCap
    hash_client: Callable[[str], str]
    fingerprint_key: bytes
    trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    new_id: Callable[[], str]
    monotonic: Callable[[], float]
    running: RunningCalls
    # What every call asks of the settings, which look each name up anew.
    response_headers: bool = field(init=False)
    max_body_bytes: int = field(init=False)
    idle_timeout_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.configure(self.settings)

    def configure(self, settings: ServerSettings) -> None:
        """Take new settings."""
        self.settings = settings
        self.response_headers = settings.response_headers
        self.max_body_bytes = settings.max_body_bytes
        self.idle_timeout_seconds = settings.idle_timeout_seconds


class Cuttable(Protocol):
    """A running call that can be ended from outside."""

    ctx: RequestContext | None

    def cut(self, refusal: Refusal) -> None: ...


class RunningCalls:
    """Every call under way, found by its series when one is blocked."""

    def __init__(self) -> None:
        self._running: set[Cuttable] = set()
        #: A call begins.
        self.add = self._running.add
        #: A call ended.
        self.discard = self._running.discard

    def __len__(self) -> int:
        return len(self._running)

    def cut(self, series: Series, refusal: Refusal) -> int:
        """End every call of a series; how many there were."""
        found = [
            call for call in self._running if call.ctx is not None and series in call.ctx.series
        ]
        for call in found:
            call.cut(refusal)
        return len(found)


class Downstream(Peer, Protocol):
    """The client's connection, as an exchange uses it."""

    peer: str

    def finished(self, exchange: Cuttable, *, reusable: bool) -> None: ...
    def become_tunnel(self, tunnel: Tunnel) -> None: ...


class Leaving(Protocol):
    """A call whose client hung up."""

    def client_gone(self) -> None: ...


class Member(Protocol):
    """A client's connection, as the port that it came in by sees it."""

    deadline: float

    def on_deadline(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...


class Port(Protocol):
    """The listening side that a connection belongs to."""

    services: Services
    loop: asyncio.AbstractEventLoop
    outbox: Outbox
    draining: bool

    @property
    def settings(self) -> ServerSettings: ...
    def admit(self, connection: Member) -> bool: ...
    def forget(self, connection: Member) -> None: ...
    def leave(self, calls: Iterable[Leaving]) -> None: ...
