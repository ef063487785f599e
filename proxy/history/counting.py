"""Imported rows as counts in the store.

Owns: summing rows into batches, and delivering each exactly once whatever breaks
off in between. Must never: hold more than one chunk of rows, or slow the store
down for a running proxy (batches are small).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import orjson

from detection.types import Observation, Series
from proxy.history.markers import Markers
from proxy.history.rows import HOUR_SECONDS, Row, stand_in
from proxy.store.counters import Batch, Counters, Delta
from proxy.store.errors import StoreError
from proxy.store.series import FIVE_MINUTES, REFUSALS, TEN_SECONDS, series_of

_DELTAS_A_BATCH: Final = 250


def queue_counts(rows: Iterable[Row], markers: Markers, counters: Counters, now: float) -> None:
    """Sum rows and leave the batches with the markers, to be sent after their commit."""
    by_identity: dict[Any, list[int]] = {}
    stand_ins: dict[Any, Observation] = {}
    for row in rows:
        call = row if isinstance(row, Observation) else stand_in(row)
        bucket = _bucket(call.ts, now)
        identity: Any = (bucket, call.provider, call.model, call.key, call.agent, call.project,
                    call.endpoint, call.user, *call.tags.items())  # fmt: skip
        sums = by_identity.get(identity)
        if sums is None:
            sums = by_identity[identity] = [0] * 9
            stand_ins[identity] = call
        for place, count in enumerate(_counts(row)):
            sums[place] += count
    by_series: dict[tuple[Series, int], list[int]] = {}
    for identity, sums in by_identity.items():
        for series in series_of(stand_ins[identity]):
            held = by_series.setdefault((series, identity[0]), [0] * 9)
            for place, count in enumerate(sums):
                held[place] += count
    shards: dict[int, list[Any]] = defaultdict(list)
    for (series, bucket), held in by_series.items():
        shards[counters.shard_of(series)].append([*series, bucket, held])
    for shard, deltas in shards.items():
        for at in range(0, len(deltas), _DELTAS_A_BATCH):
            markers.queue(shard, orjson.dumps(deltas[at : at + _DELTAS_A_BATCH]))


async def deliver(markers: Markers, counters: Counters) -> int:
    """Send what waits, in order; the number of batches sent.

    Raises StoreError where the store does not take one; it then waits on.
    """
    sent = 0
    replica = markers.fact("replica", "")
    for number, shard, payload in markers.waiting():
        after = markers.last_sent(shard)
        deltas = tuple(
            Delta.of(Series(dimension, value), bucket, counts)
            for dimension, value, bucket, counts in orjson.loads(payload)
        )
        batch = Batch(shard, replica, after, number, deltas, fresh=after == 0)
        reply = await counters.apply(batch)
        if not reply.applied and not reply.duplicate:
            if reply.last != -1:
                raise StoreError(f"the store is at batch {reply.last} of this import, not {after}")
            # A store that was emptied meanwhile knows nothing of this import.
            fresh = Batch(shard, replica, after, number, deltas, fresh=True)
            if not (await counters.apply(fresh)).applied:
                raise StoreError("the store refuses the import's counts")
        markers.delivered(number, shard)
        markers.commit()
        sent += 1
    return sent


def _bucket(ts: float, now: float) -> int:
    """The 10 s bucket a row counts in, coarser where fine ones are no longer kept."""
    age = now - ts
    if age > FIVE_MINUTES.keep_seconds:
        ts -= ts % HOUR_SECONDS
    elif age > TEN_SECONDS.keep_seconds:
        ts -= ts % FIVE_MINUTES.seconds
    return int(ts // 10)


def _counts(row: Row) -> tuple[int, ...]:
    if isinstance(row, Observation):
        if row.action in REFUSALS:
            return (0, 0, 0, 0, 0, 0, 0, 0, 1)
        failed = row.error_type is not None or (row.status or 0) >= 400
        requests, errors = 1, int(failed)
    else:
        requests, errors = row.requests or 0, row.errors or 0
    return (
        requests,
        row.cost_nano_usd or 0,
        row.input_tokens or 0,
        row.output_tokens or 0,
        row.cached_input_tokens or 0,
        errors,
        row.reasoning_tokens or 0,
        row.cache_write_tokens or 0,
        0,
    )
