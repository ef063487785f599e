"""What is counted in the store, under which key, and for how long.

Owns: the counted columns, the four resolutions, the short id of a series and
the shard it lives in. Must never: do I/O.

Key layout (``S`` is a shard, one hash slot; ``ID`` the series' id):

- ``tw:{bS}:c:ID:<letter><chunk>``: a hash of one chunk of buckets, each field one
  bucket, its value the MessagePack array of :data:`COUNTS` without its trailing
  zeros. Small hashes of short values are stored by the server as one block of
  bytes, which is what makes 35 days of history fit.
- ``tw:{bS}:i:<dimension>``: a sorted set of ``ID`` + value by last activity.
- ``tw:{bS}:l:<dimension>``: a sorted set of the ``ID`` of series that were counted more
  than a minute late, by when; gone an hour after the last.
- ``tw:{bS}:r:<replica>``: the last journal record counted from that replica.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from detection.types import TOTAL, Dimension, Observation, Series, pair

COUNTS = (
    "requests",
    "cost_nano_usd",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "errors",
    "reasoning_tokens",
    "cache_write_tokens",
    "refused",
)
"""Columns of a bucket; those that are often zero come last, where they cost nothing.

``requests`` are calls that went upstream, ``refused`` those that enforcement
answered itself; a refused call counts in no other column.
"""

WIDTH = len(COUNTS)
ID_LENGTH = 12
LATE_SECONDS = 60
LATE_KEPT_SECONDS = 3600
"""As ``lua/batch.lua`` has them: from when on a count is late, and how long that is known."""
OTHER = "other"


class Resolution(NamedTuple):
    """One ring of buckets: letter in keys, bucket width, buckets a chunk, how long kept."""

    letter: str
    seconds: int
    chunk: int
    keep_seconds: int


TEN_SECONDS = Resolution("a", 10, 120, 2 * 3600)
FIVE_MINUTES = Resolution("b", 300, 96, 48 * 3600)
HOUR = Resolution("c", 3600, 84, 35 * 86400)
DAY = Resolution("d", 86400, 100, 400 * 86400)
RESOLUTIONS = (TEN_SECONDS, FIVE_MINUTES, HOUR, DAY)
BY_LETTER = {resolution.letter: resolution for resolution in RESOLUTIONS}

REFUSALS = frozenset({"throttle", "block", "unavailable", "forbidden", "disable_key"})
"""Actions of enforcement that answer a call instead of the provider."""

COUNTED_DIMENSIONS = tuple(d.value for d in Dimension if d not in ("session", "client"))


def series_of(observation: Observation) -> tuple[Series, ...]:
    """The series that one call is counted in, the total first.

    Sessions and clients aren't kept: there are as many as there are calls.
    """
    o = observation
    found = [TOTAL]
    if o.provider:
        found.append(Series("provider", o.provider))
    if o.endpoint:
        found.append(Series("endpoint", o.endpoint))
    if o.project:
        found.append(Series("project", o.project))
    if o.user:
        found.append(Series("user", o.user))
    if o.model:
        found.append(Series("model", o.model))
    if o.key:
        found.append(Series("key", o.key))
        if o.model:
            found.append(Series("key_model", pair(o.key, o.model)))
    if o.agent:
        found.append(Series("agent", o.agent))
        if o.model:
            found.append(Series("agent_model", pair(o.agent, o.model)))
    found.extend(Series("tag", f"{name}={value}") for name, value in o.tags.items())
    return tuple(found)


@lru_cache(maxsize=16_384)
def series_id(series: Series) -> str:
    """Twelve characters that stand for a series in keys (72 bits of BLAKE2)."""
    text = f"{series.dimension}\0{series.value}".encode("utf-8", "replace")
    return base64.urlsafe_b64encode(hashlib.blake2b(text, digest_size=9).digest()).decode()


def shard_of(series: Series, shards: int) -> int:
    """Which shard counts a series."""
    return zlib.crc32(series_id(series).encode()) % shards if shards > 1 else 0


@lru_cache(maxsize=4_096)
def _spelled(series: Series) -> bytes:
    row = [series_id.__wrapped__(series), str(series.dimension), series.value]
    return dumps(row)[1:-1]


class Place:
    """Series that the same calls count in, all of one shard, as a batch spells them.

    Made once for a caller and used for each of its batches: a store's script gives
    every series its part, so that what a call costs here does not depend on how many
    series it has.
    """

    __slots__ = ("ids", "shard", "text")

    def __init__(self, series: Iterable[Series], shard: int = 0) -> None:
        """Of at least one series."""
        self.shard = shard
        self.text = b"[%b]" % b",".join(map(_spelled, series))
        self.ids: tuple[str, ...] = tuple(orjson.loads(self.text)[::3])

    @property
    def series(self) -> tuple[Series, ...]:
        """Which they are. Not kept, since there is a place for each of many callers."""
        row = orjson.loads(self.text)
        return tuple(map(Series, row[1::3], row[2::3]))


def dumps(payload: Any) -> bytes:
    """JSON, with what UTF-8 can't carry (lone surrogates) replaced."""
    try:
        return orjson.dumps(payload)
    except TypeError:
        return orjson.dumps(_readable(payload))


def _readable(payload: Any) -> Any:
    if isinstance(payload, str):
        return payload.encode("utf-8", "replace").decode()
    if isinstance(payload, list | tuple):
        return [_readable(item) for item in payload]
    return payload


class Counts(NamedTuple):
    """What happened in one bucket or window, in the order of :data:`COUNTS`."""

    requests: int = 0
    cost_nano_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    errors: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    refused: int = 0

    @classmethod
    def of(cls, values: Sequence[int]) -> Counts:
        """From a row of the store: zeros at the end left out, columns of a later version added."""
        return cls(*values[:WIDTH])

    def plus(self, other: Counts) -> Counts:
        """Column by column."""
        return Counts(*map(int.__add__, self, other))

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
