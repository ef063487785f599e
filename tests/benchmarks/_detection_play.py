"""One key's traffic through one whole engine.

Owns: making observations of a key (tokens, prices, sessions, tool calls, errors,
networks) and feeding them. Must never: know what an incident is.

A key of millions of calls is fed as one replica of a fleet: in some ten-minute
windows every call up to a cap is an observation, all the rest arrives as the other
replicas' counts per 10 s bucket. Counts are exact either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s

import numpy as np

from detection.engine import Engine
from detection.policy import Policy
from detection.settings import DetectionSettings
from detection.settings_rules import LearningSettings
from detection.types import Action, FleetBucket, Observation, Series, Verdict
from tests.benchmarks._detection_traces import WEEK, WINDOW, Key, buckets

#: Trace second 0 in epoch seconds: a Monday, midnight UTC.
EPOCH = 1_767_571_200
NANO_PER_MILLION = 1000.0
WATCHED_WINDOWS = 24
WATCHED_CALLS = 240
#: The series that are fed in full; wider ones see only this replica's observations.
NARROW = frozenset(("key", "agent", "session"))
#: Windows of untouched traffic kept after a mark, for the trials that start there.
TRIAL_WINDOWS = 16
ERROR_RATES = (0.005, 0.01, 0.01, 0.02, 0.05)
COMMON_TEXTS = 12

SETTINGS = DetectionSettings(learning=LearningSettings(days=7.0, tighten_days=7.0))


@dataclass(slots=True)
class Caller:
    """Makes the observations of one key: healthy agents replaying recorded tool calls."""

    key: Key
    runs: Sequence[Sequence[str]]
    rng: np.random.Generator
    error_rate: float = 0.01
    serial: int = 0
    session: int = 0
    left: list[str] = field(default_factory=list)
    clients: int = 2

    def tokens(self, t: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Input and output tokens of ``n`` calls at a time."""
        law = self.key.law(t)
        return (
            np.maximum(1, self.rng.lognormal(*law.input, n)).astype(np.int64),
            np.maximum(1, self.rng.lognormal(*law.output, n)).astype(np.int64),
        )

    def cost(self, given: int, made: int, times: float = 1.0) -> int:
        """Nano-USD of one call at this key's prices."""
        price_in, price_out = self.key.prices
        return int(times * NANO_PER_MILLION * (given * price_in + made * price_out))

    def fingerprint(self) -> tuple[str, str]:
        """The next last message: a tool call of a running session, or a text."""
        if self.runs and self.rng.random() < 0.7:
            if not self.left:
                self.session += 1
                self.left = list(self.runs[self.rng.integers(len(self.runs))])
            text = self.left.pop(0) if self.left else "done"
            return _digest(self.key.name, self.session, text), "tool"
        if self.rng.random() < 0.02:
            return f"{int(self.rng.integers(COMMON_TEXTS)):016x}", "text"
        return f"{int(self.rng.integers(1 << 62)):016x}", "text"

    def call(self, ts: float, given: int, made: int, **changes: object) -> Observation:
        """One healthy call, changed as asked."""
        self.serial += 1
        fingerprint, kind = self.fingerprint()
        failed = self.rng.random() < self.error_rate
        made = 0 if failed else made
        values: dict[str, object] = {
            "ts": ts,
            "id": str(self.serial),
            "key": f"key_{self.key.name}",
            "agent": f"agent-{self.key.name}",
            "provider": "openai",
            "endpoint": "chat_completions",
            "model": "served-model",
            "session": f"s{self.session}",
            "status": 500 if failed else 200,
            "error_type": "server_error" if failed else None,
            "input_tokens": None if failed else given,
            "output_tokens": None if failed else made,
            "cost_nano_usd": 0 if failed else self.cost(given, made),
            "finish_reasons": () if failed else (("tool_calls",) if kind == "tool" else ("stop",)),
            "fingerprint": fingerprint,
            "fingerprint_kind": kind,
            "client": f"net{int(self.rng.integers(self.clients))}",
        }
        values.update(changes)
        return Observation(**values)  # type: ignore[arg-type]


@dataclass(slots=True)
class Alarm:
    """One verdict as the benchmark keeps it."""

    ts: float
    verdict: Verdict


@dataclass(slots=True)
class Mark:
    """A moment of the untouched run from which incidents start: the engine then, and after."""

    t: int
    dump: dict[str, object]
    counts: list[np.ndarray] = field(default_factory=list)


class Player:
    """Feeds one key through an engine and a policy, and keeps what they say."""

    def __init__(
        self,
        key: Key,
        runs: Sequence[Sequence[str]],
        seed: int,
        settings: DetectionSettings = SETTINGS,
    ) -> None:
        self.key = key
        self.rng = np.random.default_rng([seed, hash_name(key.name)])
        self.engine = Engine(settings)
        self.policy = Policy()
        self.caller = Caller(key, runs, self.rng)
        self.caller.error_rate = float(self.rng.choice(ERROR_RATES))
        self.series = (
            Series("key", f"key_{key.name}"),
            Series("agent", f"agent-{key.name}"),
        )
        self.alarms: list[Alarm] = []
        self.actions: list[Action] = []
        self.throttles: list[Action] = []
        self.delayed = 0
        self.swept = 0.0
        self.ticked = 0.0
        self.marks: dict[int, Mark] = {}
        self.calls = 0
        self.seen = 0
        self.habits: list[Callable[[Player, int], None]] = []

    def take(self, verdicts: Iterable[Verdict], now: float) -> None:
        """Keep verdicts and what policy makes of them."""
        for verdict in verdicts:
            self.alarms.append(Alarm(now, verdict))
            for action in self.policy.decide(verdict, now):
                self.actions.append(action)
                if verdict.series.dimension in NARROW:
                    self.throttles.append(action)

    def observe(self, o: Observation) -> None:
        """Feed one call."""
        self.seen += 1
        self.take(self.engine.observe(o), o.ts)

    def others(self, rows: Sequence[FleetBucket]) -> None:
        """Feed what other replicas counted in buckets that they have not told before."""
        now = rows[-1].bucket * 10.0 + 9.9
        for series in self.series:
            self.take(self.engine.merge_fleet(series, rows, now), now)

    def sweep(self, now: float, every: float = 600.0) -> None:
        """The sweep lane: each minute while something is under way, else each ten."""
        open_now = any(a.verdict.tier for a in self.alarms[-4:])
        if now - self.swept >= (60.0 if open_now else every):
            self.swept = now
            self.take(self.engine.sweep(now), now)
            self.actions += self.policy.tick(now, self.engine.renewed)

    def window(self, t: int, counts: np.ndarray, watch: int, *, at_once: bool = False) -> None:
        """Feed one ten-minute window; the first ``watch`` calls as observations.

        ``at_once`` tells other replicas' counts only at the window's end.
        """
        rows = []
        start = EPOCH + t
        mean_cost = self._mean_cost(t)
        given, made = self.caller.tokens(t, watch) if watch else (None, None)
        used = 0
        for place in np.flatnonzero(counts):
            calls = int(counts[place])
            bucket = (start + int(place) * 10) // 10
            self.calls += calls
            own = min(calls, watch - used)
            if own and given is not None and made is not None:
                for ts in bucket * 10 + np.sort(self.rng.random(own)) * 10:
                    self.observe(self.caller.call(float(ts), int(given[used]), int(made[used])))
                    used += 1
            if self.throttles:
                self._delay(bucket, calls)
            if calls > own:
                rows.append(FleetBucket(bucket, calls - own, 0, 0, int((calls - own) * mean_cost)))
                if not at_once:
                    self.others(rows)
                    rows = []
        if rows:
            self.others(rows)
        last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
        self.sweep(start + 10.0 * (last + 1))

    def _delay(self, bucket: int, calls: int) -> None:
        """Count the calls that the throttles and blocks in force would have held back."""
        live = [a for a in self.throttles if (a.until or 0.0) > bucket * 10]
        self.throttles = live
        if live:
            rate = min((a.rate_per_second or 0.0) for a in live)
            self.delayed += max(0, calls - int(rate * 10))

    def _mean_cost(self, t: int) -> float:
        law = self.key.law(t)
        given = np.exp(law.input[0] + law.input[1] ** 2 / 2)
        made = np.exp(law.output[0] + law.output[1] ** 2 / 2)
        return self.caller.cost(1, 0) * given + self.caller.cost(0, 1) * made

    def play(self, start: int, end: int, scale: float = 1.0, *, at_once: bool = False) -> None:
        """Feed a span of the trace, scaled."""
        active = self.key.active(start, end)
        heavy = self.key.calls(start, end) * scale > WATCHED_WINDOWS * WATCHED_CALLS
        step = max(1, len(active) // WATCHED_WINDOWS) if heavy else 1
        for place, t in enumerate(active):
            counts = buckets(self.key, t, self.rng)
            if scale != 1.0:
                counts = (
                    self.rng.binomial(counts, scale)
                    if scale < 1
                    else counts + (self.rng.binomial(counts, scale - 1))
                )
            self._mark(t, counts)
            watch = WATCHED_CALLS if place % step == 0 else 0
            calls = int(counts.sum())
            self.window(t, counts, min(watch, calls) if heavy else calls, at_once=at_once)
            for habit in self.habits:
                habit(self, t)

    def _mark(self, t: int, counts: np.ndarray) -> None:
        for mark in self.marks.values():
            if mark.t <= t < mark.t + TRIAL_WINDOWS * WINDOW:
                if not mark.dump:
                    mark.dump = self.engine.dump()
                while len(mark.counts) < (t - mark.t) // WINDOW:
                    mark.counts.append(np.zeros_like(counts))
                mark.counts.append(counts)

    def learn(self) -> None:
        """Feed the learning week."""
        self.play(0, WEEK, at_once=True)


def hash_name(name: str) -> int:
    """A number of a name that is the same in every process."""
    return int.from_bytes(name.encode()[-6:].rjust(6, b"0"), "big")


def _digest(*parts: object) -> str:
    return blake2s("|".join(map(str, parts)).encode(), digest_size=8).hexdigest()
