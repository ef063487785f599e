"""Hours and days laid out as calls, so that a policy can be tried on them.

Owns: when the calls of a sum would have been, and what each would have cost. Must
never: be counted, exported or learned from; what is not known of a sum stays unknown.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from detection.types import Observation
from proxy.history.archive import moment
from proxy.history.baselines import in_order
from proxy.history.rows import Aggregate, Row, stand_in


def spread(rows: Iterable[Row]) -> Iterator[Observation]:
    """Rows in order of time as calls in order of time.

    A sum's calls fall within its five minutes as calls that know nothing of each other
    do, in the same way each time; tokens and cost are shared evenly and add up exactly.
    """
    waiting: list[tuple[float, str, Observation]] = []
    for row in in_order(rows):
        now = moment(row)
        while waiting and waiting[0][0] <= now:
            yield heappop(waiting)[2]
        if isinstance(row, Observation):
            yield row
            continue
        for call in _calls(row):
            heappush(waiting, (call.ts, call.id, call))
    while waiting:
        yield heappop(waiting)[2]


def _calls(row: Aggregate) -> Iterator[Observation]:
    count = row.requests or 0
    named = stand_in(row)
    chance = random.Random(f"{row.id}{row.start}")
    for place in range(count):
        failed = place < (row.errors or 0)
        yield named._replace(
            ts=row.start + row.seconds * chance.random(),
            id=f"{row.id}-{row.start:.0f}-{place}",
            status=500 if failed else 200,
            error_type="error" if failed else None,
            input_tokens=_share(row.input_tokens, place, count),
            cached_input_tokens=_share(row.cached_input_tokens, place, count),
            output_tokens=_share(row.output_tokens, place, count),
            cost_nano_usd=_share(row.cost_nano_usd, place, count),
        )


def _share(total: int | None, place: int, count: int) -> int | None:
    return None if total is None else total * (place + 1) // count - total * place // count
