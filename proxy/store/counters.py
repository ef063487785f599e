"""Counts in the store: sending batches, and answering who used what.

Owns: the calls of the counting scripts. Must never: keep counts itself, or
send a batch twice by itself (the ledger does, and the script knows it again).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from detection.types import Dimension, Series
from proxy.clock import Clock
from proxy.store.connection import Connection
from proxy.store.scripts import load
from proxy.store.series import (
    BY_LETTER,
    DAY,
    FIVE_MINUTES,
    HOUR,
    ID_LENGTH,
    OTHER,
    RESOLUTIONS,
    TEN_SECONDS,
    Counts,
    Place,
    Resolution,
    dumps,
    series_id,
    shard_of,
)
from proxy.store.settings import StoreSettings

WINDOWS = {"1h": 3600, "24h": 86400, "30d": 30 * 86400}
PAGE = 200
FLEET_BACK = 30

_OTHERS = {d.value: series_id(Series(d.value, OTHER)) for d in Dimension}
_RULES = dumps([list(r) for r in RESOLUTIONS]), orjson.dumps(_OTHERS)


class Delta(NamedTuple):
    """What one replica counted of the series of one place in one 10 s bucket."""

    place: Place
    bucket: int
    counts: list[int]

    @classmethod
    def of(cls, series: Series, bucket: int, counts: list[int]) -> Delta:
        """Of one series alone."""
        return cls(Place([series]), bucket, counts)


@dataclass(frozen=True, slots=True)
class Batch:
    """The records (``after``, ``to``] of one replica, as far as one shard is concerned.

    ``fresh`` says that the store is known to know nothing of this replica.
    """

    shard: int
    replica: str
    after: int
    to: int
    deltas: tuple[Delta, ...]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class BatchReply:
    """The store's answer. ``last`` is -1 where nothing is known of the replica.

    ``fleet`` holds, per touched series, (10 s bucket, counts of all replicas).
    """

    applied: bool
    duplicate: bool
    last: int
    alarms: tuple[str, ...] = ()
    fleet: list[tuple[Series, list[tuple[int, Counts]]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One series' sums over a window, fleet-wide."""

    value: str
    counts: Counts

    def as_dict(self) -> dict[str, Any]:
        """The row of the usage API."""
        return {"value": self.value} | self.counts._asdict()


class Index(NamedTuple):
    """``active`` is id and value in one, then epoch seconds of the last activity, and so on;
    ``late`` are ids of series that were counted more than a minute late; ``size`` is how
    many series there are in all."""

    size: int
    active: list[bytes]
    late: list[bytes]


#: (letter of a resolution, number of a bucket)
Bucket = tuple[str, int]


class Counters:
    """The counting part of one store."""

    def __init__(self, link: Connection, settings: StoreSettings, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._settings = settings
        self.shards = settings.shard_count
        self._batch, self._usage, self._history = load("batch"), load("usage"), load("history")
        self._cells = load("cells")

    def prefix(self, shard: int) -> str:
        """What every counting key of a shard starts with.

        Other shard counts have other keys: a series that moved would count in both places.
        """
        spread = f".{self.shards}" if self.shards > 1 else ""
        return f"{self._settings.key_prefix}:{{b{shard}{spread}}}:"

    def shard_of(self, series: Series) -> int:
        """Which shard counts a series."""
        return shard_of(series, self.shards)

    async def apply(self, batch: Batch, fleet_buckets: int = 0) -> BatchReply:
        """Send one batch; idempotent, so an unanswered one may be sent again as it is.

        Raises
        ------
        StoreUnavailableError
            No answer; whether it was counted is unknown.
        StoreRefusedError
            The store takes no writes; nothing was counted.
        """
        prefix = self.prefix(batch.shard)
        args: list[Any] = [
            prefix,
            batch.after,
            batch.to,
            "1" if batch.fresh else "0",
            fleet_buckets,
            self._settings.max_series_per_dimension,
            _payload(batch.deltas),
        ]
        sent_at = self._clock.monotonic()
        keys = [f"{prefix}r:{batch.replica}"]
        if self._settings.is_cluster:
            keys += self._touched(batch)
        reply = await self._link.run(self._batch, keys, args)
        received_at = self._clock.monotonic()
        store_time = int(reply[2]) + int(reply[3]) / 1e6
        self._clock.heard(store_time, sent_at=sent_at, received_at=received_at)
        status, last = int(reply[0]), int(reply[1])
        if status != 1:
            return BatchReply(False, status == 0, last)
        names = _names(batch) if reply[5] else {}
        fleet = [
            (names[row[0]], [(int(b[0]), Counts.of(b[1:])) for b in row[1:]]) for row in reply[5]
        ]
        return BatchReply(True, False, last, tuple(_text(a) for a in reply[4]), fleet)

    def _touched(self, batch: Batch) -> list[str]:
        """Every key that the script may touch, for a cluster that moves slots.

        Only then does the server turn the script away as a whole; it would end
        half done at the first key that had already moved.
        """
        prefix = self.prefix(batch.shard)
        now = int(self._clock() // TEN_SECONDS.seconds)
        keys: dict[str, None] = {}
        for place, counted, _ in batch.deltas:
            for series, own in zip(place.series, place.ids, strict=True):
                keys[f"{prefix}i:{series.dimension}"] = None
                keys[f"{prefix}l:{series.dimension}"] = None
                for name in (own, _OTHERS[series.dimension]):
                    for resolution in RESOLUTIONS:
                        bucket = counted * TEN_SECONDS.seconds // resolution.seconds
                        chunk = bucket // resolution.chunk
                        keys[f"{prefix}c:{name}:{resolution.letter}{chunk}"] = None
                    for recent in (now - FLEET_BACK, now + 1):
                        chunk = recent // TEN_SECONDS.chunk
                        keys[f"{prefix}c:{name}:{TEN_SECONDS.letter}{chunk}"] = None
        return list(keys)

    # ---- questions ----

    async def usage(
        self, by: str, window: str | float, *, now: float | None = None
    ) -> list[UsageRow]:
        """Fleet-wide sums per value of a dimension, dearest first.

        ``window`` is ``1h``, ``24h``, ``30d`` or seconds (up to 400 days),
        ending now; its start is rounded down to the finer of the buckets that
        still cover it (10 s, 5 min, 1 h or 1 day).
        """
        seconds = WINDOWS[window] if isinstance(window, str) else window
        spans, start = window_spans(now if now is not None else self._clock(), seconds)
        found: dict[str, Counts] = {}
        pages = (self._usage_of_shard(shard, by, spans, start) for shard in range(self.shards))
        for rows in await asyncio.gather(*pages):
            for value, counts in rows.items():
                known = found.get(value)
                found[value] = counts if known is None else known.plus(counts)
        rows_found = [UsageRow(value, counts) for value, counts in found.items()]
        rows_found.sort(key=lambda r: (-r.counts.cost_nano_usd, -r.counts.requests, r.value))
        return rows_found

    async def _usage_of_shard(
        self, shard: int, by: str, spans: list[list[Any]], start: float
    ) -> dict[str, Counts]:
        prefix = self.prefix(shard)
        found: dict[str, Counts] = {}
        offset = 0
        while True:
            args = [prefix, start - FIVE_MINUTES.seconds, offset, PAGE, orjson.dumps(spans)]
            reply = await self._link.run(self._usage, [f"{prefix}i:{by}"], args, patient=True)
            for row in reply[1:]:
                found[_text(row[0])] = Counts.of(row[1:])
            seen = int(reply[0][0])
            offset += seen
            if seen < PAGE:
                return found

    async def history(
        self, series: Series, resolution: Resolution, start: float, end: float
    ) -> list[tuple[float, Counts]]:
        """One series' buckets as (epoch seconds of the start, counts), oldest first.

        Buckets without calls are left out.
        """
        first, last = int(start // resolution.seconds), int(end // resolution.seconds)
        newest = int(self._clock() // resolution.seconds) + 1
        first = max(first, newest - resolution.keep_seconds // resolution.seconds - 1)
        last = min(last, newest)
        if last < first:
            return []
        chunks = list(range(first // resolution.chunk, last // resolution.chunk + 1))
        prefix, name = self.prefix(self.shard_of(series)), series_id(series)
        keys = [f"{prefix}c:{name}:{resolution.letter}{chunk}" for chunk in chunks]
        args = [resolution.chunk, first, last, *chunks]
        reply = await self._link.run(self._history, keys, args, patient=True)
        rows = [(int(r[0]) * float(resolution.seconds), Counts.of(r[1:])) for r in reply]
        rows.sort()
        return rows

    async def index(
        self, shard: int, dimension: str, active_since: float, late_since: float
    ) -> Index:
        """The series of a dimension in one shard that something was counted of since."""
        key, late = (f"{self.prefix(shard)}{kind}:{dimension}" for kind in "il")
        size, active, behind = await asyncio.gather(
            self._link.command("ZCARD", key),
            self._link.command("ZRANGEBYSCORE", key, active_since, "+inf", "WITHSCORES"),
            self._link.command("ZRANGEBYSCORE", late, late_since, "+inf"),
        )
        return Index(int(size), active, behind)

    async def cells(
        self, shard: int, dimension: str, ids: Sequence[bytes], buckets: Sequence[Bucket]
    ) -> list[bytes]:
        """Buckets of some series of one shard, for :func:`proxy.store.cells.unpack`."""
        prefix = self.prefix(shard)
        chunks: dict[str, dict[str, int]] = {}
        for number, (letter, bucket) in enumerate(buckets):
            chunk, field = divmod(bucket, BY_LETTER[letter].chunk)
            chunks.setdefault(f"{letter}{chunk}", {})[str(field)] = number
        args = [prefix, b"".join(ids), orjson.dumps(list(chunks.items()))]
        reply = await self._link.run(self._cells, [f"{prefix}i:{dimension}"], args, patient=True)
        return list(reply)

    async def series_list(self, dimension: str, limit: int = 10_000) -> list[tuple[str, float]]:
        """(value, epoch seconds of the last activity) of a dimension, latest first."""
        found: list[tuple[str, float]] = []
        for shard in range(self.shards):
            key = f"{self.prefix(shard)}i:{dimension}"
            reply = await self._link.command(
                "ZRANGE", key, "+inf", "-inf", "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES"
            )
            found += [
                (_text(member)[ID_LENGTH:], float(score))
                for member, score in zip(reply[::2], reply[1::2], strict=True)
            ]
        found.sort(key=lambda row: -row[1])
        return found[:limit]

    async def forget(self, series: Series) -> bool:
        """Remove everything that is counted of one series; false where nothing was."""
        prefix, name = self.prefix(self.shard_of(series)), series_id(series)
        now = self._clock()
        keys = []
        for letter, seconds, chunk, keep in RESOLUTIONS:
            span = seconds * chunk
            chunks = range(int((now - keep) // span) - 1, int(now // span) + 2)
            keys += [f"{prefix}c:{name}:{letter}{number}" for number in chunks]
        removed = int(await self._link.command("UNLINK", *keys))
        index = f"{prefix}i:{series.dimension}"
        return bool(int(await self._link.command("ZREM", index, name + series.value)) + removed)


def window_spans(now: float, seconds: float) -> tuple[list[list[Any]], float]:
    """Which buckets cover (now - seconds, now], fine ones up to a border, coarse after.

    >>> spans, start = window_spans(7205.0, 3600)
    >>> start, spans
    (3600.0, [['a', 120, 360, 359], ['b', 96, 12, 24]])
    """
    if seconds <= TEN_SECONDS.keep_seconds - 600:
        fine, coarse = TEN_SECONDS, FIVE_MINUTES
    elif seconds <= FIVE_MINUTES.keep_seconds - 3600:
        fine, coarse = FIVE_MINUTES, HOUR
    elif seconds <= HOUR.keep_seconds - 86400:
        fine, coarse = HOUR, DAY
    else:
        fine = coarse = DAY
    first = int((now - seconds) // fine.seconds)
    border = -(-first * fine.seconds // coarse.seconds)
    spans: list[list[Any]] = [
        [coarse.letter, coarse.chunk, border, int(now // coarse.seconds)],
    ]
    if fine is not coarse:
        last = border * (coarse.seconds // fine.seconds) - 1
        spans.insert(0, [fine.letter, fine.chunk, first, last])
    return spans, float(first * fine.seconds)


def _payload(deltas: Sequence[Delta]) -> bytes:
    """What the script counts; a place's own part was spelled when it was made."""
    rows = orjson.dumps([(orjson.Fragment(place.text), at, row) for place, at, row in deltas])
    return b'{"r":%b,"o":%b,"s":%b}' % (*_RULES, rows)


def _names(batch: Batch) -> dict[bytes, Series]:
    found: dict[bytes, Series] = {}
    for delta in batch.deltas:
        place = delta.place
        for name, series in zip(place.ids, place.series, strict=True):
            found[name.encode()] = series
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
