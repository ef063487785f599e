"""The contract of a wire family.

Owns: the values and protocols between the pump and the families. Must never:
await, raise into the request path, or touch a socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from detection.types import Usage

#: Header names are lower case; a repeated name keeps its last value.
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A recognised call: whose wire format, which endpoint, is it billed.

    ``wire`` names the family that reads it (``openai``, ``anthropic``, ...),
    ``provider`` the vendor billed, ``name`` the endpoint family
    (``chat_completions``, ``responses``, ``messages``, ``generate_content``,
    ...). ``model`` is set where the path names it. ``metered`` is false for
    calls that use no tokens of their own (files, models, count_tokens).
    ``streams`` is true where the path alone says that the answer streams.
    """

    provider: str
    wire: str
    name: str
    model: str | None = None
    metered: bool = True
    streams: bool = False
    #: ``json-array`` where the path alone says that a stream comes as one JSON array.
    framing: str = ""


@dataclass(frozen=True)
class RequestFacts:
    """What a request's body says, as far as metering and policy need it.

    Without slots: one is made for every call, by filling its dictionary at once.

    ``fingerprint`` is a keyed hash (16 hex digits) of the canonical last
    message (``fingerprint_kind`` ``text``) or of the last tool call with its
    result (``tool``), never of the whole prompt. ``include_usage`` is ``False``
    where an OpenAI-style stream must be asked for its usage, else ``None`` or
    ``True``. ``metadata`` holds only short string values. ``turn`` is what the
    fingerprint is still to be made of, and the key of its hash:
    :func:`proxy.providers.turns.name_turn` does, once the request is on its way.
    """

    model: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    choices: int = 1
    body_bytes: int = 0
    fingerprint: str | None = None
    fingerprint_kind: str | None = None
    turn: tuple[Any, bytes] | None = None
    user: str | None = None
    session: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    include_usage: bool | None = None
    service_tier: str | None = None
    #: Of a text that is to be spoken: some voices are billed by the character.
    characters: int | None = None


NO_FACTS = RequestFacts()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is refused, before it is put into a provider's own words.

    ``kind`` is ``throttle``, ``budget``, ``anomaly``, ``disabled``,
    ``forbidden`` (model not allowed), ``unavailable`` (store down, fail closed),
    ``unauthenticated``, ``bad_request``, ``not_found``, ``too_large``,
    ``overloaded``, ``bad_gateway``, ``timeout`` or ``internal`` (the proxy itself failed).
    ``retry_after_seconds`` is only set where waiting helps.
    """

    kind: str
    message: str
    scope: str = ""
    rule: str = ""
    limit: str = ""
    spent: str = ""
    reset_at: float | None = None
    retry_after_seconds: float | None = None
    incident: str = ""
    link: str = ""


class RefusalResponse(Protocol):
    """A refusal in a provider's own words."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...
    @property
    def body(self) -> bytes: ...


class UsageParser(Protocol):
    """Reads a response body as it passes. Sans-io; one per response."""

    def feed(self, data: bytes) -> None:
        """Consume any split of the body. Never raises, never grows past its cap."""

    def close(self, *, complete: bool) -> Usage:
        """The usage read so far. ``complete``: the transport ended cleanly."""

    @property
    def output_bytes(self) -> int:
        """Bytes of answer text read so far, at most a block behind."""


class StreamFilter(Protocol):
    """Takes the usage chunk that we asked for out of what the client sees."""

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now; holds back at most one unfinished event."""

    def close(self) -> bytes:
        """What was held back, when the stream ends."""
