"""Silences and maintenance windows: what people asked to keep still, and until when.

Owns: their form, their checks and where they are kept. Must never: delete one
that ended (it ages out), or decide what a silence means for a message.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from proxy.alerts.matchers import Matcher, all_hold, parse_matcher
from proxy.incidents_store import Documents

Kind = Literal["silence", "maintenance"]

_KEEP_SECONDS = 30 * 86_400.0
_LONGEST_SECONDS = 400 * 86_400.0
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Silence:
    """Conditions and a span in epoch seconds; ``kind`` tells a plan from a reaction.

    ``project`` limits it to incidents of that project alone.
    """

    id: str
    kind: str
    matchers: tuple[str, ...]
    starts_at: float
    ends_at: float
    comment: str = ""
    created_by: str = ""
    project: str | None = None

    def covers(self, labels: Mapping[str, str], now: float) -> bool:
        """Whether it keeps an incident with these labels still now."""
        if not self.starts_at <= now < self.ends_at:
            return False
        if self.project is not None and labels.get("project") != self.project:
            return False
        return all_hold(self.parsed(), labels)

    def parsed(self) -> tuple[Matcher, ...]:
        """The conditions, read."""
        return tuple(parse_matcher(text) for text in self.matchers)

    def as_dict(self) -> dict[str, Any]:
        """The stored and served form."""
        return {**asdict(self), "matchers": list(self.matchers)}


def new_silence(
    kind: Kind,
    matchers: tuple[str, ...],
    *,
    starts_at: float,
    ends_at: float,
    comment: str = "",
    created_by: str = "",
    project: str | None = None,
) -> Silence:
    """A silence that makes sense.

    Raises
    ------
    ValueError
        Where a condition can't be read, there is none, or the span is odd.
    """
    if not matchers and kind == "silence" and project is None:
        raise ValueError("a silence needs at least one matcher")
    for text in matchers:
        parse_matcher(text)
    if not 0 < ends_at - starts_at <= _LONGEST_SECONDS:
        raise ValueError("it must end after it starts, within 400 days")
    made = secrets.token_hex(6)
    return Silence(
        f"sil_{made}", kind, matchers, starts_at, ends_at, comment[:500], created_by, project
    )


class Silences:
    """All silences, as last read from the store."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._held: tuple[Silence, ...] = ()

    @property
    def held(self) -> tuple[Silence, ...]:
        """What was read last."""
        return self._held

    async def refresh(self, now: float) -> None:
        """Read those that haven't ended."""
        found = await self._documents.doc_range("silence", now, 1e12, limit=_MOST)
        self._held = tuple(_read(document.body) for document in found)

    async def add(self, silence: Silence) -> None:
        """Keep a new one until a month after its end."""
        keep = silence.ends_at - silence.starts_at + _KEEP_SECONDS
        await self._documents.doc_put(
            "silence", silence.id, silence.as_dict(), at=silence.ends_at, ttl_seconds=keep
        )
        self._held = (*self._held, silence)

    async def get(self, silence_id: str) -> Silence | None:
        """One by its id."""
        document = await self._documents.doc_get("silence", silence_id)
        return None if document is None else _read(document.body)

    async def end(self, silence: Silence, now: float) -> Silence:
        """End it now; it stays to be looked at."""
        body = {**silence.as_dict(), "ends_at": now}
        await self._documents.doc_put(
            "silence", silence.id, body, at=now, ttl_seconds=_KEEP_SECONDS
        )
        self._held = tuple(one for one in self._held if one.id != silence.id)
        return _read(body)

    async def recent(self, now: float) -> list[Silence]:
        """Those of the last month and those to come."""
        since = now - _KEEP_SECONDS
        found = await self._documents.doc_range("silence", since, 1e12, limit=_MOST)
        return [_read(document.body) for document in found]


def _read(body: Mapping[str, Any]) -> Silence:
    return Silence(**{**body, "matchers": tuple(body["matchers"])})
