"""What replicas tell each other: calls of a series, and requests that come again.

Owns: overlaying what others counted. Must never: await, read a clock, or count
what was told twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detection.detectors.base import Occasion
from detection.lane import SHARED_LEAST, Lane, more
from detection.profile import HALF_HOUR
from detection.repeats import Repeat
from detection.state import SeriesState, View
from detection.types import FleetBucket, Series, Verdict

SHARED_MOST = 32
FLEET_BUCKETS = 384


class RepeatShare(NamedTuple):
    """One fingerprint that comes again: whose, which, of what kind, how often in the window."""

    series: Series
    fingerprint: str
    kind: str
    calls: int


class Fleet(Lane):
    """A replica among others."""

    def _state(self, series: Series, bucket: int) -> tuple[list[Verdict] | None, SeriesState]:
        """A series that others tell of, and what making room for it brought up."""
        registry = self._registry
        state = registry.states.get(series)
        if state is not None:
            return None, state
        told = self._make_room() if registry.full else None
        return told, registry.state(series, bucket)

    def merge_fleet(
        self, series: Series, buckets: Sequence[FleetBucket], now: float
    ) -> list[Verdict]:
        """Overlay what other replicas counted, absolute per 10 s bucket; may be sent again."""
        self.now = max(self.now, now)
        bucket = int(now) // 10
        told, state = self._state(series, bucket)
        fleet = state.fleet
        if fleet is None:
            fleet = state.fleet = {}
        window = state.window
        if bucket - window.bucket > HALF_HOUR:
            self._close(state)
        window.advance(bucket)
        rows, tokens = [], []
        for row in sorted(buckets):
            if row.bucket <= bucket - FLEET_BUCKETS or row.bucket > bucket:
                continue
            old = fleet.get(row.bucket)
            calls = row.requests - (old.requests if old else 0)
            cost = row.cost_nano_usd - (old.cost_nano_usd if old else 0)
            rows.append((row.bucket, calls, cost))
            state.errors += row.errors - (old.errors if old else 0)
            tokens.append((row.bucket, row.tokens - (old.tokens if old else 0), 0))
            fleet[row.bucket] = row
        if rows:
            window.add_late(rows)
            if state.tokens is not None:
                state.tokens.advance(bucket)
                state.tokens.add_late(tokens)
        if len(fleet) > 2 * FLEET_BUCKETS:
            for old_bucket in [b for b in fleet if b <= bucket - FLEET_BUCKETS]:
                del fleet[old_bucket]
        if (
            window.calls >= state.alarm_calls
            or window.cost >= state.alarm_cost
            or bucket >= state.alarm_bucket
        ):
            told = more(told, self._count(state, None, bucket))
        return told or []

    def repeats_to_share(self, now: float) -> list[RepeatShare]:
        """The fingerprints that this replica saw come again, greatest count first.

        Enough to send to the others every few seconds, so that a loop spread over
        replicas is found: each adds what the others counted in about the same window.
        """
        found = []
        for series, when in list(self._repeating.items()):
            owner = self._registry.owners.get(series)
            if owner is None or now - when > 2.0 * owner.repeats.half:
                del self._repeating[series]
                continue
            table = owner.repeats
            for count, fingerprint, entry in table.busiest(now, 4):
                if count >= SHARED_LEAST:
                    found.append(
                        RepeatShare(owner.state.series, fingerprint, entry.kind, int(count))
                    )
        found.sort(key=lambda r: (-r.calls, r.series, r.fingerprint))
        return found[:SHARED_MOST]

    def merge_repeats(
        self, replica: str, repeats: Sequence[RepeatShare], now: float
    ) -> list[Verdict]:
        """Take another replica's repeats; they hold for half a window."""
        self.now = max(self.now, now)
        bucket = int(now) // 10
        told: list[Verdict] | None = None
        for share in repeats:
            owner = self._registry.owners.get(share.series)
            if owner is None:
                continue
            table = owner.repeats
            table.others.setdefault(share.fingerprint, {})[replica] = (share.calls, now)
            entry = table.entries.get(share.fingerprint)
            if isinstance(entry, Repeat):
                entry.turn(int(now / table.half))
                view = View(now, bucket, owner.state, owner)
                view.repeat, view.fingerprint = entry, share.fingerprint
                told = more(told, self._ask(Occasion.REPEAT, None, view))
            for old in [f for f, r in table.others.items() if _stale(r, now, table.half)]:
                del table.others[old]
        return told or []


def _stale(reports: Mapping[str, tuple[int, float]], now: float, half: float) -> bool:
    return all(now - when > half for _, when in reports.values())
