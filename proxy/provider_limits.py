"""What providers said of their own limits, for the metrics.

Owns: the last word of each provider to each key. Must never: cost a call more than a
few look-ups, or grow without bound.

Answers bear up to a dozen such fields, on every call, and a scrape comes every few
seconds: so a call only leaves its answer's fields here, and they are read at the scrape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from proxy.metrics import Reading
from proxy.providers import rate_limits, retry_after
from proxy.providers.base import Headers

_MOST = 200
#: Provider and key.
_Who = tuple[str, str]
_Entry = TypeVar("_Entry")
_Value = TypeVar("_Value")


class ProviderLimits:
    """Fields of answers, read when somebody asks."""

    __slots__ = ("_limits", "_names", "_unread", "_waits")

    def __init__(self) -> None:
        #: Sets of field names, and whether they tell a limit.
        self._names: dict[tuple[str, ...], bool] = {}
        self._unread: dict[_Who, tuple[tuple[str, ...], Headers, float]] = {}
        self._limits: dict[tuple[str, str, str], tuple[float | None, float | None]] = {}
        self._waits: dict[_Who, float] = {}

    def note(self, provider: str, key: str, headers: Headers, now: float) -> None:
        """An answer came, with these fields (lower-case names), at ``now`` (epoch seconds)."""
        names = tuple(headers)
        tells = self._names.get(names)
        if tells is None:
            tells = self._learn(names)
        if not tells:
            return
        who = provider, key
        before = self._unread.get(who)
        if before is None:
            if len(self._unread) >= _MOST:
                self._read_all()
        elif before[0] != names:
            self._read(who, before[1], before[2])  # it may tell of limits that this one does not
        self._unread[who] = names, headers, now

    def told_to_wait(self, provider: str, key: str, until: float) -> None:
        """A provider asked for a pause in its answer's body (``until``: epoch seconds)."""
        _remember(self._waits, (provider, key), until)

    def readings(self) -> list[Reading]:
        """All of it, for a scrape."""
        self._read_all()
        return list(self._told())

    def _told(self) -> Iterator[Reading]:
        for limit, (remaining, reset_at) in self._limits.items():
            if remaining is not None:
                yield Reading("tokenweir_upstream_ratelimit_remaining", limit, remaining)
            if reset_at is not None:
                resets = "tokenweir_upstream_ratelimit_reset_timestamp_seconds"
                yield Reading(resets, limit, reset_at)
        for who, until in self._waits.items():
            yield Reading("tokenweir_upstream_retry_after_timestamp_seconds", who, until)

    def _learn(self, names: tuple[str, ...]) -> bool:
        if len(self._names) >= _MOST:
            self._names.clear()
        tells = any("ratelimit" in name or "retry-after" in name for name in names)
        self._names[names] = tells
        return tells

    def _read_all(self) -> None:
        unread, self._unread = self._unread, {}
        for who, (_, headers, at) in unread.items():
            self._read(who, headers, at)

    def _read(self, who: _Who, headers: Headers, at: float) -> None:
        for limit in rate_limits(who[0], headers, at):
            reset = limit.reset_seconds
            reset_at = None if reset is None else at + reset
            _remember(self._limits, (*who, limit.name), (limit.remaining, reset_at))
        wait = retry_after(headers, at)
        if wait:
            _remember(self._waits, who, at + wait)


def _remember(entries: dict[_Entry, _Value], entry: _Entry, value: _Value) -> None:
    """Keep the last value of an entry; the oldest entry makes room for a new one."""
    if entry not in entries and len(entries) >= _MOST:
        del entries[next(iter(entries))]
    entries[entry] = value
