"""Baselines from history: what a series would know had it lived through the import.

Owns: leading imported rows through a detection engine in order of time, and
handing what it learned to a running one. Must never: learn by a way of its own
(the engine learns, so that imported and lived baselines are the same), or act
on what it finds on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import structlog

from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.types import FleetBucket, Observation, Series
from proxy import engine_file
from proxy.history.archive import Archive, moment
from proxy.history.merging import merged
from proxy.history.rows import DAY_SECONDS, HOUR_SECONDS, Aggregate, Row, stand_in
from proxy.store.series import series_of

_log = structlog.get_logger("tokenweir.history")

#: A profile remembers six weeks; what is older would be forgotten while learned.
REMEMBERED_SECONDS: Final = 42 * DAY_SECONDS

#: How the calls of an hour of which only the total is known are laid out: the share of
#: the hour's calls in each of its twelve five minutes. Evenly would understate the records
#: that live traffic is compared with; the peak here is what the busiest five minutes
#: of an hour are to its mean on real keys (docs/import-export.md).
_FIVE_MINUTES: Final = (0.05, 0.07, 0.09, 0.06, 0.22, 0.12, 0.09, 0.07, 0.06, 0.06, 0.06, 0.05)
#: Of a day's total: one hour of three times the mean, the others alike.
_BUSIEST_HOUR, _BUSIEST_SHARE = 12, 3 / 24


def learn(
    rows: Iterable[Row],
    settings: DetectionSettings | None = None,
    progress: Callable[[float], None] = lambda ts: None,
    sweep_seconds: float = 600.0,
) -> Engine:
    """An engine that has lived through the rows, which come in order of time.

    A proxy sweeps every minute; here ten do, which shifts when a waiting call is
    counted by some seconds and nothing else, and makes a long import short.
    """
    engine = Engine(settings)
    sums = _Sums(engine)
    swept = 0.0
    for row in in_order(rows):
        now = moment(row)
        sums.flush(now)
        if now - swept >= sweep_seconds:
            engine.sweep(now)
            progress(now)
            swept = now
        if isinstance(row, Observation):
            engine.observe(row)
        else:
            sums.add(row)
    sums.flush(float("inf"))
    # Half-hours are learned when they are over; the last one is over now.
    engine.sweep((engine.now // 1800 + 1) * 1800)
    engine.finish_learning()
    return engine


class _Sums:
    """Five-minute sums on their way into an engine, by series.

    The engine takes absolute counts of a series, so that aggregates that share one
    (two models of a key) are added up first.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start = 0.0
        self._held: dict[Series, list[int]] = {}

    def add(self, row: Aggregate) -> None:
        """Count a sum. One of its calls goes through the engine by itself, so that the
        models, agents and pairs in it are known and are not told of as new later."""
        named = stand_in(row)
        self._engine.observe(named)
        self._start = row.start
        counts = (
            (row.requests or 0) - 1,
            row.errors or 0,
            (row.input_tokens or 0) + (row.output_tokens or 0),
            row.cost_nano_usd or 0,
        )
        for series in series_of(named):
            held = self._held.setdefault(series, [0, 0, 0, 0])
            for place, count in enumerate(counts):
                held[place] += count

    def flush(self, now: float) -> None:
        """Hand on what is older than five minutes, spread over its minutes."""
        if not self._held or now < self._start + 300:
            return
        first = int(self._start) // 10
        for series, counts in self._held.items():
            buckets = [
                FleetBucket(first + 6 * step + 1, *(_part(count, step) for count in counts))
                for step in range(5)
            ]
            self._engine.merge_fleet(series, buckets, self._start + 290)
        self._held.clear()


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows with aggregates cut into pieces of five minutes, in order of time."""
    waiting: list[Aggregate] = []
    for row in rows:
        now = moment(row)
        while waiting and waiting[-1].start <= now:
            yield waiting.pop()
        if isinstance(row, Observation):
            yield row
        elif row.requests:
            waiting.extend(_pieces(row))
            waiting.sort(key=lambda piece: -piece.start)
    while waiting:
        yield waiting.pop()


def _pieces(row: Aggregate) -> Iterator[Aggregate]:
    """An aggregate as five-minute sums that add up to it exactly."""
    shares: list[tuple[float, float]] = []
    hours = max(1, round(row.seconds / HOUR_SECONDS))
    for hour in range(hours):
        share = 1.0 / hours
        if hours == 24:
            busiest = hour == _BUSIEST_HOUR
            share = _BUSIEST_SHARE if busiest else (1 - _BUSIEST_SHARE) / 23
        start = row.start + hour * HOUR_SECONDS
        shares += [(start + 300 * i, share * part) for i, part in enumerate(_FIVE_MINUTES)]
    if row.seconds < HOUR_SECONDS:
        shares = [(row.start, 1.0)]
    sums = {
        name: getattr(row, name) or 0
        for name in ("requests", "errors", "input_tokens", "output_tokens", "cost_nano_usd")
    }
    done = dict.fromkeys(sums, 0)
    reached = 0.0
    for place, (start, share) in enumerate(shares):
        reached += share
        last = place == len(shares) - 1
        part = {n: (s if last else int(s * reached)) - done[n] for n, s in sums.items()}
        for name, count in part.items():
            done[name] += count
        if part["requests"]:
            yield row._replace(
                start=start,
                seconds=300.0,
                requests=part["requests"],
                errors=part["errors"],
                input_tokens=part["input_tokens"],
                output_tokens=part["output_tokens"],
                cost_nano_usd=part["cost_nano_usd"],
            )


def _part(count: int, step: int) -> int:
    return count * (step + 1) // 5 - count * step // 5


def write(
    data_dir: Path,
    settings: DetectionSettings | None = None,
    progress: Callable[[float], None] = lambda ts: None,
) -> int:
    """Learn from all that was imported, and leave it for the running proxy.

    Returns the number of series learned. Written whole or not at all.
    """
    archive = Archive(data_dir)
    hours = archive.hours()
    if not hours:
        return 0
    since = (hours[-1] + 1) * HOUR_SECONDS - REMEMBERED_SECONDS
    engine = learn(archive.rows(since), settings, progress)
    engine_file.rewrite(engine, _path(data_dir))
    return int(engine.health()["series"])


_taken: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()


def take(engine: Engine, data_dir: Path) -> bool:
    """Give a running engine what imports left for it; whether there was anything new.

    Taking the same again changes nothing, so that it may be called at every start. A
    file that can't be used is told once and left alone.
    """
    try:
        written = _path(data_dir).stat().st_mtime_ns
    except FileNotFoundError:
        return False
    if _taken.get(engine) == written:
        return False
    _taken[engine] = written
    try:
        imported = Engine(engine.settings)
        engine_file.read(imported, _path(data_dir))
        engine.load(merged(engine.dump(), imported.dump()))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        _log.warning("imported_baselines_unusable", file=str(_path(data_dir)), reason=repr(error))
        return False
    return True


def _path(data_dir: Path) -> Path:
    return data_dir / "imported-baselines.json"
