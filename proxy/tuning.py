"""Proposals for thresholds and limits from one's own history.

Owns: trials (one configuration replayed over one history), the knobs that are
tried, and the choice for a wanted rate of false alarms. Must never: change a
configuration; what it finds is proposed as a difference with its reasons.

The history is taken as healthy: what rings over it at critical or above counts
as a false alarm. Leave out days with a known incident.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from detection.backtest import Backtest, Summary
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation, Series

_DAY_SECONDS: Final = 86400.0
_LOUD: Final = ("critical", "emergency")
#: A limit is proposed at this many times the busiest that was seen.
HEADROOM: Final = 3.0
_SILENCE_SECONDS: Final = 1800.0
_LEARNED_SECONDS: Final = 14 * _DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Knob:
    """One threshold: where it stands, and the values tried, most sensitive first."""

    section: str
    name: str
    values: tuple[float, ...]

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    def of(self, settings: DetectionSettings) -> float:
        """The value in force."""
        return float(getattr(getattr(settings, self.section), self.name))

    def set(self, settings: DetectionSettings, value: float) -> DetectionSettings:
        """The settings with another value."""
        section = getattr(settings, self.section)
        kind = type(getattr(section, self.name))
        return replace(settings, **{self.section: replace(section, **{self.name: kind(value)})})


KNOBS: Final = (
    Knob("volume", "record_ratio", (1.5, 2.0, 3.0, 4.0, 6.0, 10.0)),
    Knob("volume", "steady_ratio", (1.15, 1.3, 1.6, 2.0)),
    Knob("volume", "hour_ratio", (3.0, 5.0, 8.0)),
    Knob("volume", "usual_ratio", (5.0, 8.0, 12.0)),
    Knob("volume", "evidence_ratio", (1.25, 1.5, 2.0, 3.0)),
    Knob("volume", "p_value", (1e-4, 1e-6, 1e-9)),
    Knob("volume", "e_value", (1e3, 1e4, 1e6)),
    Knob("floors", "calls_in_60_seconds", (10, 20, 30, 60, 120)),
    Knob("floors", "dollars_in_5_minutes", (0.2, 0.5, 1.0, 2.0, 5.0)),
    Knob("repetition", "repeats", (8, 12, 20, 40)),
    Knob("repetition", "growing_steps", (16, 24, 40)),
    Knob("errors", "threshold", (6.0, 9.0, 14.0)),
    Knob("errors", "retries", (4, 6, 10)),
    Knob("shape", "threshold", (7.0, 10.0, 15.0)),
    Knob("shape", "ratio", (1.5, 2.0, 3.0)),
    Knob("drift", "ratio", (1.15, 1.25, 1.5)),
    Knob("drift", "peer_ratio", (3.0, 5.0, 8.0)),
)


@dataclass(slots=True)
class Episode:
    """Alarms of one series and signal at critical or above, and what policy did, until half an
    hour of silence. Times are epoch seconds; ``observed`` and ``baseline`` are the first's."""

    since: float
    last: float
    tier: str
    dimension: str
    value: str
    signal: str
    observed: float | None
    baseline: float | None
    done: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Trial:
    """One configuration over one history. ``calls`` and ``hurt`` are calls made and calls
    stopped, by agent or key. Before ``judged_from``, epoch seconds, all was learned and
    nothing judged."""

    name: str
    summary: Summary = field(default_factory=Summary)
    judged_from: float = 0.0
    signals: Counter[str] = field(default_factory=Counter)
    episodes: list[Episode] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    hurt: Counter[str] = field(default_factory=Counter)
    spent_by_day: Counter[int] = field(default_factory=Counter)
    stopped_by_day: Counter[int] = field(default_factory=Counter)
    records: dict[Series, dict[str, int]] = field(default_factory=dict)

    @property
    def loud_a_week(self) -> float:
        """Alarms at critical or above per key-week, outside learning."""
        loud = sum(self.summary.alarms.get(tier, 0) for tier in _LOUD)
        judged = replace(self.summary, first=max(self.summary.first, self.judged_from))
        return loud / judged.key_weeks()

    @property
    def stopped_nano_usd(self) -> int:
        return self.summary.blocked.cost_nano_usd + self.summary.throttled.cost_nano_usd


def caller_of(call: Observation) -> str:
    """Whose call it is, in a word."""
    return call.agent or call.key or "unnamed"


def some_of(calls: Callable[[], Iterable[Observation]], most: int) -> list[Observation]:
    """At most so many calls of a history: those of some callers over its whole time.

    Leaving callers out keeps the weeks, and so the rate of alarms per key-week, where
    leaving days out would not. Where the callers that fit are less than half of what is
    wanted (one of them makes nearly all calls), it is the latest calls of all.
    """
    counts = Counter(caller_of(call) for call in calls())
    room, kept = most, set()
    for caller in sorted(counts, key=lambda name: blake2b(name.encode()).digest()):
        if counts[caller] <= room:
            room -= counts[caller]
            kept.add(caller)
    if room > most // 2 and len(kept) < len(counts):
        return list(deque(calls(), maxlen=most))
    return [call for call in calls() if caller_of(call) in kept]


def learned_at(first: float, last: float) -> float:
    """When a trial's learning ends: after half of the history, two weeks at most.

    What comes after is judged by baselines that did not see it.
    """
    return first + min((last - first) / 2, _LEARNED_SECONDS)


def run(
    name: str,
    calls: Iterable[Observation],
    detection: DetectionSettings,
    policies: PolicySettings,
    *,
    learned: float | None,
) -> Trial:
    """Replay a history. At ``learned``, epoch seconds, all that was seen by then is taken as
    learned, as after an import of it; without, learning takes its time, as it would have."""
    test = Backtest(detection, policies)
    summary = test.summary
    trial = Trial(name, summary, learned or 0.0)
    under_way: dict[tuple[str, ...], Episode] = {}
    for call in calls:
        if learned is not None and call.ts >= learned:
            test.engine.finish_learning()
            learned = None
        before = summary.blocked.calls + summary.throttled.calls
        for line in test.feed(call):
            if line["tier"] in _LOUD and not line["learning"]:
                if line["action"] is None:
                    trial.signals[line["signal"]] += 1
                _note(line, trial.episodes, under_way)
        day = int(call.ts // _DAY_SECONDS)
        cost = call.cost_nano_usd or 0
        trial.spent_by_day[day] += cost
        caller = caller_of(call)
        trial.calls[caller] += 1
        if summary.blocked.calls + summary.throttled.calls > before:
            trial.hurt[caller] += 1
            trial.stopped_by_day[day] += cost
    test.finish()
    for state in test.engine.dump()["states"]:
        series = Series(*state["series"])
        view = test.engine.view(series, summary.last)
        if view is not None and view.records:
            trial.records[series] = dict(view.records)
    return trial


def _note(
    line: dict[str, Any], episodes: list[Episode], under_way: dict[tuple[str, ...], Episode]
) -> None:
    scope = line["scope"]
    what = (scope["dimension"], scope["value"], line["signal"])
    found = under_way.get(what)
    if found is None or line["ts"] > found.last + _SILENCE_SECONDS:
        found = under_way[what] = Episode(
            line["ts"], line["ts"], line["tier"], *what, line["observed"], line["baseline"]
        )
        episodes.append(found)
    found.last = max(found.last, line["ts"])
    if line["tier"] == "emergency":
        found.tier = line["tier"]
    if line["action"] is not None:
        found.done[line["action"]] += 1


@dataclass(frozen=True, slots=True)
class Change:
    """One proposal: a path of the configuration, old and new value, and why."""

    path: str
    old: float
    new: float
    reason: str


@dataclass(slots=True)
class Proposal:
    """What tuning found. ``curves`` holds, per knob, (value, alarms per key-week), and
    ``current`` the value in force."""

    wanted_a_week: float
    before: Trial
    after: Trial
    changes: list[Change]
    limits: list[dict[str, Any]]
    curves: dict[str, list[tuple[float, float]]]
    current: dict[str, float]
    settings: DetectionSettings

    def untouched(self) -> list[str]:
        """Thresholds that make no difference to this history."""
        return [path for path, curve in self.curves.items() if len({r for _, r in curve}) == 1]


def propose(
    calls: Sequence[Observation],
    detection: DetectionSettings,
    policies: PolicySettings,
    *,
    wanted_a_week: float,
    knobs: Sequence[Knob] = KNOBS,
    progress: Callable[[str], None] = lambda what: None,
) -> Proposal:
    """Find the most sensitive thresholds that keep to the wanted rate of false alarms.

    Each knob is first tried alone, which gives the curves; what each may take is put
    together, and stepped back, the most sensitive first, until all of it keeps to the
    rate in a replay of its own. ``wanted_a_week`` is per key and week.
    """

    learned = learned_at(calls[0].ts, calls[-1].ts)

    def tried(what: str, settings: DetectionSettings) -> Trial:
        progress(what)
        return run(what, calls, settings, policies, learned=learned)

    before = tried("as it is", detection)
    curves: dict[str, list[tuple[float, float]]] = {}
    chosen: dict[Knob, float] = {}
    for knob in knobs:
        current = knob.of(detection)
        curve = [(current, before.loud_a_week)]
        curve += [
            (value, tried(f"{knob.path} {value:g}", knob.set(detection, value)).loud_a_week)
            for value in knob.values
            if not math.isclose(value, current)
        ]
        curve.sort(key=lambda point: point[0])
        curves[knob.path] = curve
        chosen[knob] = _choice(knob, curve, current, wanted_a_week)
    settings, after = detection, before
    while True:
        settings = detection
        for knob, value in chosen.items():
            settings = knob.set(settings, value)
        if settings != detection:
            after = tried("all together", settings)
        if after.loud_a_week <= wanted_a_week or not _step_back(chosen, detection):
            break
    changes = [
        Change(knob.path, knob.of(detection), value, _reason(knob, value, detection, curves))
        for knob, value in chosen.items()
        if not math.isclose(value, knob.of(detection))
    ]
    return Proposal(
        wanted_a_week,
        before,
        after,
        changes,
        propose_limits(before),
        curves,
        {knob.path: knob.of(detection) for knob in knobs},
        settings,
    )


def _choice(knob: Knob, curve: list[tuple[float, float]], current: float, wanted: float) -> float:
    """The value to take: unchanged where it makes no difference to this history.

    A threshold that this history never touches says nothing about how far it could be
    tightened safely, so it is left alone.
    """
    rates = dict(curve)
    if max(rates.values()) - min(rates.values()) == 0:
        return current
    for value in knob.values:
        if rates.get(value, math.inf) <= wanted:
            return value
    quietest = min(rates.values())
    return (
        next(value for value in knob.values if rates.get(value) == quietest)
        if (quietest < rates[current])
        else current
    )


def _step_back(chosen: dict[Knob, float], detection: DetectionSettings) -> bool:
    """Undo the last tightening, or loosen one more step; whether there was one to do."""
    for knob in reversed(list(chosen)):
        values = sorted({*knob.values, knob.of(detection)}, key=lambda v: _rank(knob, v))
        place = values.index(min(values, key=lambda v: abs(v - chosen[knob])))
        if _rank(knob, chosen[knob]) < _rank(knob, knob.of(detection)):
            chosen[knob] = values[place + 1]
            return True
    return False


def _rank(knob: Knob, value: float) -> float:
    """How quiet a value is: the more sensitive come first."""
    return value if knob.values[0] < knob.values[-1] else -value


def _reason(
    knob: Knob,
    value: float,
    detection: DetectionSettings,
    curves: dict[str, list[tuple[float, float]]],
) -> str:
    rates = dict(curves[knob.path])
    old = knob.of(detection)
    way = "more sensitive" if _rank(knob, value) < _rank(knob, old) else "quieter"
    return (
        f"{way}: alone it gives {rates.get(value, math.nan):.3f} loud alarms per key-week "
        f"over this history, against {rates[old]:.3f} with {old:g}"
    )


def propose_limits(trial: Trial, most: int = 5) -> list[dict[str, Any]]:
    """Hard limits well above anything seen: one for all agents, and the greatest's own."""
    agents = {s.value: r for s, r in trial.records.items() if s.dimension == "agent"}
    found: list[dict[str, Any]] = []
    for metric, record, per, unit in (
        ("requests", "calls_60", "minute", 1.0),
        ("cost", "cost_3600", "hour", 1e-9),
    ):
        seen = {
            name: records.get(record, 0) * unit
            for name, records in agents.items()
            if records.get(record, 0) > 0
        }
        if not seen:
            continue
        greatest = sorted(seen, key=lambda name: (-seen[name], name))
        found += [
            {
                "metric": metric,
                "limit": nice(seen[name] * HEADROOM),
                "per": per,
                "dimension": "agent",
                "values": [name],
                "name": f"{name}: {HEADROOM:g} times its busiest {per} ({seen[name]:.4g})",
            }
            for name in greatest[:most]
        ]
        top = seen[greatest[0]]
        found.append(
            {
                "metric": metric,
                "limit": nice(top * HEADROOM),
                "per": per,
                "dimension": "agent",
                "name": f"any agent: {HEADROOM:g} times the busiest {per} of any ({top:.4g})",
            }
        )
    return found


def nice(value: float) -> float:
    """The next round number upwards, two digits long.

    >>> nice(0.0231), nice(97.2), nice(1234)
    (0.024, 98, 1300)
    """
    if value <= 0:
        return 0
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded = math.ceil(value / scale - 1e-9) * scale
    return round(rounded) if rounded >= 10 else float(f"{rounded:.3g}")
