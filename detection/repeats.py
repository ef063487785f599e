"""Which calls of one owner come again: the table behind loops and retry storms.

Owns: bounded counts of fingerprints in a sliding window, what an owner habitually
repeats, and steady growth of a session's context. Must never: judge.

The first sight of a fingerprint costs one dictionary entry; only a second one
makes a counter. Singles are dropped first when the table is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeAlias

DAY_SECONDS = 86400.0
#: Days that an owner's own record of repeats is remembered.
RECORD_DAYS = 28
#: A fingerprint repeated on so many days is a habit: a poller, a cron job.
HABIT_DAYS = 3
#: ... and so is one that has repeated without pause for so long.
HABIT_SECONDS = 6 * 3600.0
HABITS_KEPT = 64
SESSIONS_KEPT = 256

#: A session's growth: input tokens of the last call, the usual step, steps alike in a row,
#: when the last call was, and when the steps began.
Growth: TypeAlias = tuple[float, float, int, float, float]


class Repeat:
    """The counter of one fingerprint: calls and failures by half-windows."""

    __slots__ = ("before", "epoch", "fails", "fails_before", "first", "kind", "now", "older")

    def __init__(self, first: float, epoch: int, kind: str) -> None:
        self.first = first
        self.epoch = epoch
        self.now = 1
        self.before = self.older = self.fails = self.fails_before = 0
        self.kind = kind

    def turn(self, epoch: int) -> None:
        """Move on to a later half-window."""
        steps = epoch - self.epoch
        if steps <= 0:
            return
        if steps == 1:
            self.older, self.before, self.now = self.before, self.now, 0
            self.fails_before, self.fails = self.fails, 0
        else:
            self.older = self.now if steps == 2 else 0
            self.before = self.now = self.fails = self.fails_before = 0
        self.epoch = epoch

    def count(self, ts: float, half: float) -> float:
        """Calls in the window ending now; the oldest half-window counts in part."""
        return self.now + self.before + self.older * (1.0 - (ts / half - self.epoch))


class Repeats:
    """The repeat table of one owner.

    ``half`` is half the window in seconds. ``habits`` maps a fingerprint to
    ``[days seen, last day, greatest count]``; ``maxima`` a day to the greatest
    count of that day; ``others`` what other replicas counted, ``(count, ts)`` by
    fingerprint and replica.

    >>> r = Repeats(60.0, 64)
    >>> [round(r.hit("aa", t, "tool", False).count(t, 60.0)) for t in (0.0, 10.0, 20.0)][-1]
    3
    """

    __slots__ = ("cap", "entries", "growth", "habits", "half", "maxima", "others")

    def __init__(self, half: float, cap: int) -> None:
        self.half = half
        self.cap = cap
        self.entries: dict[str, float | Repeat] = {}
        self.habits: dict[str, list[float]] = {}
        self.maxima: dict[int, float] = {}
        self.others: dict[str, dict[str, tuple[int, float]]] = {}
        self.growth: dict[str, Growth] = {}

    def hit(self, fingerprint: str, ts: float, kind: str, failed: bool) -> Repeat:
        """Count one call; meant for fingerprints already seen, works for all."""
        entry = self.entries.get(fingerprint)
        epoch = int(ts / self.half)
        if entry is None:
            entry = Repeat(ts, epoch, kind)
            entry.now = 0
        elif not isinstance(entry, Repeat):
            entry = Repeat(entry, int(entry / self.half), kind)
        self.entries[fingerprint] = entry
        entry.turn(epoch)
        entry.now += 1
        if failed:
            entry.fails += 1
        if kind == "tool":
            entry.kind = kind
        return entry

    def elsewhere(self, fingerprint: str, ts: float) -> int:
        """Calls that other replicas counted in about the same window."""
        reports = self.others.get(fingerprint)
        if not reports:
            return 0
        return sum(count for count, when in reports.values() if ts - when <= self.half)

    def busiest(self, ts: float, most: int) -> list[tuple[float, str, Repeat]]:
        """The most repeated fingerprints in the window, greatest count first."""
        epoch = int(ts / self.half)
        found = [
            (e.count(ts, self.half), fp, e)
            for fp, e in self.entries.items()
            if isinstance(e, Repeat) and e.epoch >= epoch - 1
        ]
        found.sort(key=lambda row: (-row[0], row[1]))
        return found[:most]

    def prune(self, ts: float) -> None:
        """Make room: keep running counters and the newest singles."""
        epoch = int(ts / self.half)
        kept: dict[str, float | Repeat] = {
            fp: e
            for fp, e in self.entries.items()
            if e.__class__ is Repeat and e.epoch >= epoch - 2
        }
        if len(kept) > self.cap // 2:
            last = sorted(kept, key=lambda fp: (kept[fp].epoch, fp))  # type: ignore[union-attr]
            for fp in last[: len(kept) - self.cap // 2]:
                del kept[fp]
        singles = ((fp, e) for fp, e in reversed(self.entries.items()) if e.__class__ is not Repeat)
        kept.update(reversed(list(islice(singles, self.cap // 4))))
        self.entries = kept

    def record(self, ts: float) -> float:
        """The greatest count that earlier days saw and left unquestioned."""
        today = int(ts / DAY_SECONDS)
        return max((c for d, c in self.maxima.items() if d < today), default=0.0)

    def learn(self, fingerprint: str, count: float, ts: float) -> None:
        """Take a count that nobody questioned into the owner's record and habits."""
        today = int(ts / DAY_SECONDS)
        if count > self.maxima.get(today, 0.0):
            self.maxima[today] = count
            for day in [d for d in self.maxima if d <= today - RECORD_DAYS]:
                del self.maxima[day]

    def accustom(self, fingerprint: str, entry: Repeat, count: float, ts: float) -> bool:
        """Note that a fingerprint loops today; true where that is a habit."""
        today = int(ts / DAY_SECONDS)
        habit = self.habits.get(fingerprint)
        if habit is None:
            if len(self.habits) >= HABITS_KEPT:
                del self.habits[min(self.habits, key=lambda fp: (self.habits[fp][1], fp))]
            self.habits[fingerprint] = [1, today, count]
            return False
        if habit[1] != today:
            habit[0], habit[1] = habit[0] + 1, today
        known = habit[0] >= HABIT_DAYS or ts - entry.first >= HABIT_SECONDS
        if known and count <= 2.0 * habit[2] + 1:
            return True
        habit[2] = max(habit[2], count)
        return False

    def allow(self, fingerprint: str, count: float, ts: float) -> None:
        """A person called this loop meant: it is a habit from now on, up to twice its count."""
        entry = self.entries.get(fingerprint)
        seen = entry.count(ts, self.half) if isinstance(entry, Repeat) else 0.0
        self.habits[fingerprint] = [HABIT_DAYS, int(ts / DAY_SECONDS), max(count, seen)]

    def grow(self, session: str, tokens: int, ts: float) -> int:
        """Steps in a row by which a session's input grew by the same amount."""
        row = self.growth.get(session)
        if row is None:
            if len(self.growth) >= SESSIONS_KEPT:
                for old in sorted(self.growth, key=lambda s: (self.growth[s][3], s))[:64]:
                    del self.growth[old]
            self.growth[session] = (tokens, 0.0, 0, ts, ts)
            return 0
        last, usual, steps, _, since = row
        step = tokens - last
        if step > 0 and abs(step - usual) <= 0.03 * usual + 1:
            steps += 1
        else:
            usual, steps, since = step, 0, ts
        self.growth[session] = (tokens, usual, steps, ts, since)
        return steps

    def dump(self) -> dict[str, Any]:
        """The table as plain values."""
        return {
            "half": self.half,
            "cap": self.cap,
            "entries": {
                fp: [getattr(e, name) for name in Repeat.__slots__] if isinstance(e, Repeat) else e
                for fp, e in self.entries.items()
            },
            "habits": {k: list(v) for k, v in self.habits.items()},
            "maxima": {str(k): v for k, v in self.maxima.items()},
            "others": {k: {r: list(p) for r, p in v.items()} for k, v in self.others.items()},
            "growth": {k: list(v) for k, v in self.growth.items()},
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Repeats:
        """Undo :meth:`dump`."""
        table = cls(float(saved["half"]), int(saved["cap"]))
        for fingerprint, row in saved["entries"].items():
            if isinstance(row, list):
                entry = Repeat(0.0, 0, "")
                for name, value in zip(Repeat.__slots__, row, strict=True):
                    setattr(entry, name, value)
                table.entries[fingerprint] = entry
            else:
                table.entries[fingerprint] = float(row)
        table.habits = {k: list(v) for k, v in saved["habits"].items()}
        table.maxima = {int(k): float(v) for k, v in saved["maxima"].items()}
        table.others = {
            k: {r: (int(p[0]), float(p[1])) for r, p in v.items()}
            for k, v in saved["others"].items()
        }
        table.growth = {k: (v[0], v[1], int(v[2]), v[3], v[4]) for k, v in saved["growth"].items()}
        return table
