"""Labelled incidents and look-alikes, laid over a key's own traffic.

Owns: what each incident does to a key, and one trial of it. Must never: tell the
engine anything but observations and other replicas' counts.

A trial starts from the engine's own state in the untouched run. Strength is in
times the key's mean rate over its non-empty ten-minute windows of the learning
week, taken as at least one call in ten seconds. Calls go on as if nothing were
enforced, so that what is counted is when the engine would have acted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from detection.types import ActionKind, FleetBucket, Observation, Series, Signal, Tier
from tests.benchmarks._detection_play import EPOCH, NARROW, Caller, Mark, Player
from tests.benchmarks._detection_traces import BUCKETS, WEEK

TRIAL_SECONDS = 900
LEAST_RATE = 0.1
#: Calls of an incident fed one by one before the rest comes as other replicas' counts.
FULL_CALLS = 2500
THINNED = 40
NORMAL_PER_BUCKET = 12
SWAP = 16.7

#: Signal and series of alarms that the untouched traffic raises as well.
Rings = frozenset[tuple[Signal, Series]]
Change = Callable[[Caller, Observation, np.random.Generator], Observation]


@dataclass(frozen=True, slots=True)
class Incident:
    """One kind of incident at one strength.

    ``added`` calls come on top of the normal ones at ``strength`` times the base
    rate; otherwise ``share`` of the normal calls are ``change``d. ``stop`` names what
    counts as found: a block, or the first critical.
    """

    name: str
    strength: str
    rate: float
    change: Change
    added: bool = True
    share: float = 1.0
    stop: str = "critical"
    quiet: bool = False


@dataclass(slots=True)
class Found:
    """When and after what an incident was found; ``None`` where it was not."""

    critical: tuple[float, int, float] | None = None
    block: tuple[float, int, float] | None = None

    def by(self, stop: str) -> tuple[float, int, float] | None:
        """Seconds, requests and dollars until what counts as found."""
        return self.block if stop == "block" else self.critical


def _tool_loop(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    return o._replace(
        fingerprint="f00dfeedf00dfeed", fingerprint_kind="tool", session="loop", status=200,
        error_type=None,
    )  # fmt: skip


def _ping_pong(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    return _tool_loop(caller, o, rng)._replace(fingerprint=f"{caller.serial % 3:016x}")


def _growing(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    given = 2000 + 350 * (caller.serial % 100_000)
    return o._replace(
        fingerprint_kind="tool", session="grow", input_tokens=given, status=200, error_type=None,
        output_tokens=80, cost_nano_usd=caller.cost(given, 80),
    )  # fmt: skip


def _varied(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    return o._replace(fingerprint=f"{int(rng.integers(1 << 62)):016x}", fingerprint_kind="text")


def _errors(share: float) -> Change:
    def change(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
        repeated = f"{int(rng.integers(3)):016x}"
        if rng.random() >= share:
            return o._replace(fingerprint=repeated, fingerprint_kind="text", status=200,
                              error_type=None)  # fmt: skip
        return o._replace(
            fingerprint=repeated, fingerprint_kind="text", status=500, error_type="server_error",
            input_tokens=None, output_tokens=None, cost_nano_usd=0,
        )  # fmt: skip

    return change


def _swap(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    return o._replace(model="dear-model", cost_nano_usd=int((o.cost_nano_usd or 0) * SWAP))


def _bloat(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    given = (o.input_tokens or 0) * 8
    return o._replace(input_tokens=given, cost_nano_usd=caller.cost(given, o.output_tokens or 0))


def _inflate(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    made = (o.output_tokens or 0) * 8
    return o._replace(output_tokens=made, cost_nano_usd=caller.cost(o.input_tokens or 0, made))


def _leaked(caller: Caller, o: Observation, rng: np.random.Generator) -> Observation:
    return _varied(caller, o, rng)._replace(client="net-stranger", agent=None, model="dear-model",
                                            status=200, error_type=None)  # fmt: skip


INCIDENTS: tuple[Incident, ...] = (
    *(Incident("loop_repeating", f"{x}x", x, _tool_loop, stop="block") for x in (5, 20, 100)),
    Incident("loop_ping_pong", "20x", 20, _ping_pong, stop="block"),
    Incident("loop_growing_context", "20x", 20, _growing, stop="block"),
    *(Incident("surge_varied", f"{x}x", x, _varied) for x in (5, 20, 100)),
    Incident("retry_storm", "60%", 5, _errors(0.6)),
    Incident("retry_storm", "100%", 5, _errors(1.0)),
    *(
        Incident("model_swap_16.7x", f"{int(x * 100)}%", 1, _swap, added=False, share=x)
        for x in (1.0, 0.2, 0.05)
    ),
    Incident("prompt_bloat", "8x", 1, _bloat, added=False),
    Incident("output_inflation", "8x", 1, _inflate, added=False),
    Incident("leaked_key_3am", "20x", 20, _leaked, quiet=True),
)


def base_rate(player: Player) -> float:
    """The key's own mean rate, calls a second."""
    return max(LEAST_RATE, player.key.rate(0, WEEK))


def trial(player: Player, mark: Mark, incident: Incident, seed: int, rings: Rings) -> Found:
    """Play one incident from a mark for 15 minutes, or until it is found.

    An alarm or a block counts only where the untouched traffic doesn't ring for the
    same signal and series at that time.
    """
    rng = np.random.default_rng([seed, mark.t, len(incident.name)])
    run = resume(player, mark, rng)
    start = EPOCH + mark.t + int(rng.integers(60)) * 10
    found = Found()
    paid = 0
    calls = 0
    ticked = 0.0
    others: dict[int, tuple[int, int]] = {}
    for o, own, group in _stream(run, mark, incident, start, rng):
        if own:
            calls += group
            paid += (o.cost_nano_usd or 0) * group
        before, acted = len(run.alarms), len(run.actions)
        if group == 1:
            run.observe(o)
        else:
            cost = (o.cost_nano_usd or 0) * group
            bucket = int(o.ts) // 10
            had = others.get(bucket, (0, 0))
            others[bucket] = (had[0] + group, had[1] + cost)
            run.others((FleetBucket(bucket, others[bucket][0], 0, 0, others[bucket][1]),))
        if o.ts - ticked >= 1.0:
            ticked = o.ts
            run.actions += run.policy.tick(o.ts, run.engine.renewed)
        place = (o.ts - start, calls, paid / 1e9)
        if found.critical is None and any(
            a.verdict.tier >= Tier.CRITICAL
            and a.verdict.series.dimension in NARROW
            and (a.verdict.signal, a.verdict.series) not in rings
            for a in run.alarms[before:]
        ):
            found.critical = place
        if found.block is None and any(
            a.kind is ActionKind.BLOCK and (a.signal, a.series) not in rings
            for a in run.actions[acted:]
        ):
            found.block = place
        if found.by(incident.stop) is not None:
            break
    return found


def resume(player: Player, mark: Mark, rng: np.random.Generator) -> Player:
    run = Player(player.key, player.caller.runs, 0, player.engine.settings)
    run.engine.load(mark.dump)
    run.rng = run.caller.rng = rng
    run.caller.error_rate = player.caller.error_rate
    run.caller.serial = 10_000_000
    run.caller.session = 10_000_000
    return run


def _stream(
    run: Player, mark: Mark, incident: Incident, start: int, rng: np.random.Generator
) -> Iterator[tuple[Observation, bool, int]]:
    """Calls in order: (call, is it of the incident, how many it stands for)."""
    base = base_rate(run)
    fed = 0
    counts = np.concatenate(mark.counts) if mark.counts else np.zeros(BUCKETS, dtype=np.int64)
    for bucket in range(start // 10, start // 10 + TRIAL_SECONDS // 10):
        place = bucket - (EPOCH + mark.t) // 10
        normal = int(counts[place]) if place < len(counts) else 0
        if incident.added:
            mine = int(rng.poisson(incident.rate * base * 10))
        else:
            mine, normal = max(normal, int(rng.poisson(base * 10))), 0
        shown = min(normal, NORMAL_PER_BUCKET)
        alone = mine if fed < FULL_CALLS else min(mine, THINNED)
        fed += alone
        kinds = np.zeros(shown + alone, dtype=bool)
        kinds[shown:] = True
        rng.shuffle(kinds)
        times = bucket * 10 + np.sort(rng.random(shown + alone)) * 10
        given, made = run.caller.tokens(mark.t, shown + alone + 1)
        for i, own in enumerate(kinds):
            o = run.caller.call(float(times[i]), int(given[i]), int(made[i]))
            if own and (incident.added or rng.random() < incident.share):
                o = incident.change(run.caller, o, rng)
            yield o, bool(own), 1
        late = run.caller.call(bucket * 10 + 9.99, int(given[-1]), int(made[-1]), session=None)
        if normal > shown:
            yield late._replace(fingerprint=None), False, normal - shown
        if mine > alone:
            changed = incident.change(run.caller, late, rng) if incident.added else late
            yield changed._replace(fingerprint=None), True, mine - alone
