"""Detection on real traffic: what it finds, how soon, and whom it wrongs.

Owns: the protocol of the benchmark and its report. Must never: choose a threshold
on the keys that it reports.

Run ``python -m tests.benchmarks.detection --traces DIR --seeds 1,2,3,4,5 [--json FILE]``.
Keys are split in halves by a hash of their name: thresholds were chosen on the one
(``--half tuned``), the other is reported. Seven days are learned, as if imported,
and seven are tested. ``--quick`` takes one seed and every third key; ``--processes``
are as many as processors unless given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from detection.types import ActionKind, Tier
from tests.benchmarks import _detection_report as report
from tests.benchmarks._detection_anchors import Anchor, judge
from tests.benchmarks._detection_incidents import (
    INCIDENTS,
    TRIAL_SECONDS,
    Found,
    Rings,
    base_rate,
    trial,
)
from tests.benchmarks._detection_lookalikes import LOOKALIKES, worst
from tests.benchmarks._detection_play import EPOCH, NARROW, Mark, Player
from tests.benchmarks._detection_slow import drifts, microseconds, stream, trial_marks
from tests.benchmarks._detection_traces import WEEK, Key, load

EPISODE_SECONDS = 900.0
#: How long before a trial an alarm of the untouched traffic may still be under way.
HELD_SECONDS = 900.0
#: Every so many keys run the look-alikes that need two weeks of their own.
WHOLE_EVERY = 10
DRIFT_EVERY = 3


@dataclass(slots=True)
class KeyWeek:
    """One key's untouched test week: false episodes by tier, and what was held back."""

    key: str
    episodes: dict[str, int]
    blocked: bool
    delayed: int
    calls: int


@dataclass(slots=True)
class Results:
    """Everything that the report is made of."""

    weeks: list[KeyWeek] = field(default_factory=list)
    incidents: dict[tuple[str, str, str], list[tuple[str, Found]]] = field(default_factory=dict)
    lookalikes: dict[str, list[Tier]] = field(default_factory=dict)
    anchors: dict[str, list[Anchor]] = field(default_factory=dict)
    drift: dict[str, list[bool]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    microseconds: float = 0.0
    bytes_per_series: int = 0

    def add(self, other: Results) -> None:
        """Take in the results of another key-week."""
        self.weeks += other.weeks
        for row, trials in other.incidents.items():
            self.incidents.setdefault(row, []).extend(trials)
        for name, tiers in other.lookalikes.items():
            self.lookalikes.setdefault(name, []).extend(tiers)
        for name, anchors in other.anchors.items():
            self.anchors.setdefault(name, []).extend(anchors)
        for name, found in other.drift.items():
            self.drift.setdefault(name, []).extend(found)
        for name, count in other.faults.items():
            self.faults[name] = self.faults.get(name, 0) + count


def half_of(key: Key) -> str:
    """``reported`` or ``tuned``, by a hash of the key's name."""
    return "reported" if hashlib.sha256(key.name.encode()).digest()[0] % 2 else "tuned"


def episodes(player: Player) -> dict[str, int]:
    """False episodes of the test week by their worst tier; alarms 15 min apart are one."""
    alarms = sorted(
        (a.ts, a.verdict.tier)
        for a in player.alarms
        if a.verdict.tier and a.verdict.series.dimension in NARROW and a.ts >= EPOCH + WEEK
    )
    counts: dict[str, int] = {}
    last, tier = -1e18, Tier.NONE
    for ts, now in [*alarms, (1e18, Tier.NONE)]:
        if ts - last > EPISODE_SECONDS:
            if tier:
                counts[tier.label] = counts.get(tier.label, 0) + 1
            tier = Tier.NONE
        last, tier = ts, max(tier, now)
    return counts


def rings(player: Player, mark: Mark) -> Rings:
    """What critical alarms the untouched traffic raises when a trial runs: not due to it."""
    start = EPOCH + mark.t
    return frozenset(
        (a.verdict.signal, a.verdict.series)
        for a in player.alarms
        if a.verdict.tier >= Tier.CRITICAL
        and a.verdict.series.dimension in NARROW
        and start - HELD_SECONDS <= a.ts <= start + 600 + TRIAL_SECONDS
    )


def run_key(key: Key, runs: Sequence[Sequence[str]], seed: int, place: int, out: Results) -> None:
    """The untouched weeks of one key, then all that starts from its marks."""
    player = Player(key, runs, seed)
    player.learn()
    day, night = trial_marks(player, seed)
    player.marks = {0: Mark(day, {}), 1: Mark(night, {})}
    learned = player.calls
    player.delayed = 0
    player.play(WEEK, 2 * WEEK)
    blocked = any(a.kind is ActionKind.BLOCK and a.since >= EPOCH + WEEK for a in player.actions)
    out.weeks.append(
        KeyWeek(key.name, episodes(player), blocked, player.delayed, player.calls - learned)
    )
    for incident in INCIDENTS:
        mark = player.marks[1 if incident.quiet else 0]
        found = trial(player, mark, incident, seed, rings(player, mark))
        row = (incident.name, incident.strength, incident.stop)
        out.incidents.setdefault(row, []).append((key.name, found))
    for kind in LOOKALIKES:
        if kind.whole and place % WHOLE_EVERY:
            continue
        mark = player.marks[0]
        rng = np.random.default_rng([seed, place, len(kind.name)])
        start = EPOCH + (WEEK if kind.whole else mark.t)
        again = kind.run(player, mark, rng)
        out.lookalikes.setdefault(kind.name, []).append(worst(again, start, player, kind))
    for anchor in judge(key, day, 20 * base_rate(player)):
        out.anchors.setdefault(anchor.name, []).append(anchor)
    if place % DRIFT_EVERY == 0:
        for name, weekly in (("drift_+5%/week", 0.05), ("no_drift", 0.0)):
            out.drift.setdefault(name, []).append(drifts(key, weekly, seed))
    for name, count in player.engine.faults.items():
        out.faults[name] = out.faults.get(name, 0) + count


def run_alone(task: tuple[Key, Sequence[Sequence[str]], int, int]) -> Results:
    """:func:`run_key` with results of its own, for a pool of processes."""
    out = Results()
    run_key(*task, out)
    return out


def chosen(keys: Sequence[Key], half: str, quick: bool) -> list[Key]:
    """The keys of a half, every third of them where it must be quick."""
    found = [k for k in keys if half in ("all", half_of(k))]
    return found[::3] if quick else found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--half", choices=("reported", "tuned", "all"), default="reported")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    keys, runs, absent = load(options.traces)
    for name in absent:
        print(f"absent, left out: {name}")
    if not keys:
        raise SystemExit("no key has two weeks of traffic there")
    used = chosen(keys, options.half, options.quick)
    seeds = [int(s) for s in options.seeds.split(",")][: 1 if options.quick else None]
    print(
        f"{len(keys)} keys with two weeks; {len(used)} of the half '{options.half}' "
        f"(thresholds were chosen on the half 'tuned'); seeds {seeds}"
    )
    out = Results()
    started = time.monotonic()
    tasks = [
        (key, runs, seed, place + turn)
        for turn, seed in enumerate(seeds)
        for place, key in enumerate(used)
    ]
    with Pool(max(1, options.processes)) as pool:
        for done, part in enumerate(pool.imap(run_alone, tasks), 1):
            out.add(part)
            if done % 10 == 0 or done == len(tasks):
                gone = time.monotonic() - started
                print(f"{done}/{len(tasks)} key-weeks, {gone:.0f} s", flush=True)
    out.microseconds, health = microseconds(stream(keys[:40], runs, 2000))
    out.bytes_per_series = int(health["bytes_per_series"])  # type: ignore[call-overload]
    report.show(out)
    if options.json:
        options.json.write_text(json.dumps(report.summary(out), indent=1))


if __name__ == "__main__":
    main()
