"""What looks like an incident and is none.

Owns: launches, busy hours, cron, holidays, growth, coding agents, pollers,
evaluations, load tests. Must never: count an alarm that the key's untouched
traffic raises as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detection.types import Observation, Signal, Tier
from tests.benchmarks._detection_incidents import resume
from tests.benchmarks._detection_play import EPOCH, NARROW, TRIAL_WINDOWS, Alarm, Mark, Player
from tests.benchmarks._detection_traces import DAY, WEEK, WINDOW, Key

HOUR = 3600

Run = Callable[[Player, Mark, np.random.Generator], Player]


@dataclass(frozen=True, slots=True)
class LookAlike:
    """One kind; ``whole`` ones learn their own two weeks, the others start at a mark."""

    name: str
    run: Run
    whole: bool = False
    counts: Callable[[Alarm], bool] = lambda alarm: True


def worst(run: Player, start: float, untouched: Player, kind: LookAlike) -> Tier:
    """The worst alarm of the look-alike since ``start`` that the untouched run lacks then."""
    found = Tier.NONE
    for alarm in run.alarms:
        verdict = alarm.verdict
        if alarm.ts < start or verdict.series.dimension not in NARROW or verdict.learning:
            continue
        if not kind.counts(alarm):
            continue
        if any(
            a.verdict.tier >= verdict.tier and abs(a.ts - alarm.ts) < 1800 for a in untouched.alarms
        ):
            continue
        found = max(found, verdict.tier)
    return found


def _scaled(factors: Callable[[int], float], windows: int) -> Run:
    def run(player: Player, mark: Mark, rng: np.random.Generator) -> Player:
        again = resume(player, mark, rng)
        for place, counts in enumerate(mark.counts[:windows]):
            more = rng.poisson(counts * (factors(place) - 1.0))
            total = counts + more
            again.window(mark.t + place * WINDOW, total, min(200, int(total.sum())))
        return again

    return run


def _among(make: Callable[[Player, float, np.random.Generator], list[Observation]]) -> Run:
    def run(player: Player, mark: Mark, rng: np.random.Generator) -> Player:
        again = resume(player, mark, rng)
        calls = make(again, float(EPOCH + mark.t), rng)
        for place, counts in enumerate(mark.counts[:6]):
            start = EPOCH + mark.t + place * WINDOW
            for bucket in range(60):
                low = start + bucket * 10
                while calls and calls[0].ts < low + 10:
                    again.observe(calls.pop(0))
                one = np.zeros_like(counts)
                one[bucket] = counts[bucket]
                again.window(mark.t + place * WINDOW, one, min(10, int(counts[bucket])))
        return again

    return run


def _calls(run: Player, times: np.ndarray, **changes: object) -> list[Observation]:
    given, made = run.caller.tokens(0, len(times))
    return [
        run.caller.call(float(ts), int(given[i]), int(made[i]), status=200, error_type=None,
                        **changes)
        for i, ts in enumerate(times)
    ]  # fmt: skip


def _coding_agent(run: Player, start: float, rng: np.random.Generator) -> list[Observation]:
    times = start + np.cumsum(rng.uniform(15, 60, 80))
    calls = _calls(run, times, session="coding", fingerprint_kind="tool")
    for place in range(0, len(calls), 4):
        result = 0 if rng.random() < 0.4 else int(rng.integers(1 << 60))
        calls[place] = calls[place]._replace(fingerprint=f"{result:016x}")
    return calls


def _evaluation(run: Player, start: float, rng: np.random.Generator) -> list[Observation]:
    times = start + np.sort(rng.uniform(0, 180, 200))
    return _calls(run, times, fingerprint="e" * 16, fingerprint_kind="text", session=None)


def _load_test(run: Player, start: float, rng: np.random.Generator) -> list[Observation]:
    times = start + np.sort(rng.uniform(0, 300, 1500))
    return [
        o._replace(endpoint="embeddings", model="embedding-model", output_tokens=0,
                   cost_nano_usd=20 * (o.input_tokens or 0), fingerprint=f"{i:016x}",
                   fingerprint_kind="text")
        for i, o in enumerate(_calls(run, times, session=None))
    ]  # fmt: skip


def _poller(run: Player, start: float, rng: np.random.Generator) -> list[Observation]:
    times = start + np.arange(0, 3500, 10.0)
    return _calls(run, times, fingerprint="b" * 16, fingerprint_kind="tool", session="poller")


def _cron(hour: Callable[[int], int]) -> Callable[[Player, int], None]:
    def habit(run: Player, t: int) -> None:
        day = t // DAY
        if t % DAY // WINDOW != hour(day) * 6:
            return
        times = EPOCH + t + WINDOW + np.sort(run.rng.uniform(0, 300, 200))
        for i, o in enumerate(_calls(run, times, session="cron")):
            same = i % 4 == 0
            run.observe(
                o._replace(
                    fingerprint="c" * 16 if same else f"{i:08x}{day:08x}",
                    fingerprint_kind="tool" if same else "text",
                )
            )

    return habit


def _polls(run: Player, t: int) -> None:
    times = EPOCH + t + WINDOW + np.arange(0, 600, 15.0)
    for o in _calls(run, times, session="poller"):
        run.observe(o._replace(fingerprint="b" * 16, fingerprint_kind="tool"))


def _week(habit: Callable[[Player, int], None] | None, scale: float = 1.0) -> Run:
    def run(player: Player, mark: Mark, rng: np.random.Generator) -> Player:
        again = Player(filled(player.key), player.caller.runs, 11, player.engine.settings)
        if habit is not None:
            again.habits.append(habit)
        again.learn()
        again.play(WEEK, 2 * WEEK, scale)
        return again

    return run


def _holiday(player: Player, mark: Mark, rng: np.random.Generator) -> Player:
    again = Player(player.key, player.caller.runs, 11, player.engine.settings)
    again.learn()
    again.play(WEEK + 3 * DAY, WEEK + 5 * DAY)
    return again


def filled(key: Key) -> Key:
    """The key with at least one call in every window, so that its habits have a clock."""
    windows = dict.fromkeys(range(0, 2 * WEEK, WINDOW), (1, "Gamma", 1.0, 1.0, 1.0))
    windows.update(key.windows)
    return Key(key.name, windows, key.tokens, key.prices)


def _at_night(alarm: Alarm) -> bool:
    return 2 * HOUR <= (alarm.ts - EPOCH) % DAY < 4 * HOUR


def _repeating(alarm: Alarm) -> bool:
    return alarm.verdict.signal in (Signal.AGENT_LOOP, Signal.RETRY_STORM)


LOOKALIKES: tuple[LookAlike, ...] = (
    LookAlike("launch_2x", _scaled(lambda w: 1.0 + min(1.0, (w + 1) / 3), TRIAL_WINDOWS)),
    LookAlike("busy_hour_1.5x", _scaled(lambda w: 1.5, 6)),
    LookAlike("coding_agent_reruns_tests", _among(_coding_agent)),
    LookAlike("evaluation_200_samples", _among(_evaluation)),
    LookAlike("embeddings_load_test", _among(_load_test)),
    LookAlike("new_poller_10s", _among(_poller)),
    LookAlike("nightly_cron", _week(_cron(lambda day: 2)), True, _at_night),
    LookAlike("cron_moved_by_1h", _week(_cron(lambda day: 2 if day < 10 else 3)), True, _at_night),
    LookAlike("poller_15s", _week(_polls), True, _repeating),
    LookAlike("monday_after_holiday", _holiday, whole=True),
    LookAlike("growth_10pct_week", _week(None, 1.1), whole=True),
)
