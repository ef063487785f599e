"""The path of one observation through counts, detectors and combination.

Owns: the inline lane. Must never: await, read a clock, or raise into traffic: a
detector that raises is counted and off for that series.

The same observations and sweeps give the same verdicts. A call is looked at for
repetition, failure, excess and newcomers at once; its counts wait in its cell
until at most sixteen calls or one minute have come together, so that a count is at
most fifteen calls late, and fewer where an alarm is near.
"""

from __future__ import annotations

from typing import Any

from detection.cells import PART, Cell, Registry, members
from detection.combine import HOLD, Combiner
from detection.detectors.base import Detector, Occasion, discover
from detection.profile import HALF_HOUR
from detection.settings import DetectionSettings
from detection.state import NEVER, SeriesState, View
from detection.types import (
    NOT_FAILURES,
    TOTAL,
    Observation,
    Series,
    Signal,
    Tier,
    Verdict,
)

#: What enforcement did to calls that never reached a provider.
STOPPED = frozenset(("block", "unavailable", "disabled", "forbidden"))
#: Client errors that are the provider's business: too slow, too early, too many.
NOT_OWN = frozenset((408, 409, 425, 429))
#: Counts below this are not worth sharing with other replicas.
SHARED_LEAST = 3
#: No call costs a million dollars or has a million billion tokens.
MOST = 10**15
#: Integers of one digit (30 bits), which the interpreter compares without a call.
SMALL = 2**30 - 1
#: Most calls of a cell that wait to be booked together.
ROOM = 16
#: The first calls of a cell are booked at once: who tries something out wants to see it.
#: Those up to twice the room may wait like all others, but are all learned from.
AT_ONCE = 4
LATEST = 6
#: Times that room is made at once, if one doesn't do.
ROUNDS = 4
SUSPECT_SECONDS = 6 * 3600.0


class Lane:
    """The inline lane: what happens on every observation."""

    def __init__(self, settings: DetectionSettings | None = None) -> None:
        self.settings = settings or DetectionSettings()
        self.now = 0.0
        self.faults: dict[str, int] = {}
        found = discover(self.settings) if self.settings.enabled else []
        self._by: dict[Occasion, tuple[Detector, ...]] = {
            occasion: tuple(d for d in found if d.occasion is occasion) for occasion in Occasion
        }
        counted = frozenset(d for judge in self._by[Occasion.COUNT] for d in judge.dimensions)
        self._registry = Registry(self.settings, counted)
        self._registry.errors_by(
            frozenset(d for judge in self._by[Occasion.FAILURE] for d in judge.dimensions)
        )
        self._cells = self._registry.cells
        self._combiner = Combiner(self.settings)
        self._expected = [(*e.span(), e.factor, e.scope) for e in self.settings.expected]
        self._learned = self._slow = 0
        #: Owners with calls that came again of late, by when: few, whatever the owners.
        self._repeating: dict[Series, float] = {}
        self._least = self.settings.floors.calls_to_judge

    def observe(self, o: Observation) -> list[Verdict]:
        """Take one finished call; returns verdicts that are new, raised or over.

        Calls that enforcement stopped are not counted; throttled ones count as
        calls, since their number shows whether a loop goes on, but not as failures.
        """
        try:
            # A slice is a plain tuple, which unpacks faster than a named one.
            (ts, _, key, agent, project, user, session, tags, provider, _, endpoint, model, _,
             status, error_type, input_tokens, _, _, output_tokens, _, cost, _, finish,
             fingerprint, _, client, _, _, _, action) = o[:30]  # fmt: skip
            if action is not None and action != "allow" and action in STOPPED:
                return []
            bucket = int(ts) // 10
            if ts > self.now:
                self.now = ts
            identity: tuple[Any, ...] = (
                (key, agent, project, user, provider, endpoint, model, tuple(tags.items()))
                if tags
                else (key, agent, project, user, provider, endpoint, model)
            )
            cell = self._cells.get(identity)
            told: list[Verdict] | None = None
            if cell is None:
                cell, told = self._new_cell(identity, o, bucket)
            if not cell.calls:
                cell.start = bucket
            calls = cell.calls = cell.calls + 1
            owner = cell.owner
            throttled = action == "throttle"
            failed = (
                (status is not None and status >= 400)
                if error_type is None
                else error_type not in NOT_FAILURES
            ) and (not throttled)
            if cost is not None:
                if cost.__class__ is not int or cost < 0 or cost > SMALL:
                    cost = _whole(cost)
                cell.cost += cost
            if input_tokens is not None or output_tokens is not None:
                tokens = (input_tokens or 0) + (output_tokens or 0)
                if tokens.__class__ is not int or tokens < 0 or tokens > SMALL:
                    tokens = _whole(tokens)
                cell.tokens += tokens
            if finish:
                cell.finish[finish] = cell.finish.get(finish, 0) + 1
            if client is not None and client not in cell.clients:
                told = more(told, self._client(cell, o, client, bucket))
            shape = owner.shape
            shape.calls += 1
            if cost is not None and not throttled:
                output = output_tokens or 0
                if (
                    cost > shape.cost.high
                    or output > shape.output.high
                    or cost > shape.price.high * ((input_tokens or 0) + 4 * output)
                ):
                    told = more(told, self._ask(Occasion.EXCESS, o, self._view(cell, bucket)))
            if fingerprint is not None:
                entries = owner.repeats.entries
                if fingerprint in entries:
                    told = more(told, self._repeated(cell, o, fingerprint, failed, bucket))
                    calls = cell.calls
                else:
                    entries[fingerprint] = ts
                    if len(entries) > owner.repeats.cap:
                        owner.repeats.prune(ts)
            if session is not None and input_tokens:
                growth = owner.repeats.grow(session, input_tokens, ts)
                if growth >= 8:
                    told = more(told, self._grew(cell, o, growth, bucket))
            if failed:
                told = more(told, self._failed(cell, o, bucket))
            elif calls >= cell.room or bucket - cell.start >= LATEST:
                if calls < cell.wait and bucket - cell.start < LATEST:
                    owner.shape.learn(cost, input_tokens, output_tokens, self._least)
                else:
                    told = more(told, self._book(cell, o, bucket))
            return told or []
        except Exception as error:
            self._fault("engine", None, error)
            return []

    def _book(self, cell: Cell, o: Observation | None, bucket: int) -> list[Verdict] | None:
        """Book a cell's waiting calls to its series and judge those that may alarm."""
        calls, cost = cell.calls, cell.cost
        if not calls:
            return None
        cell.calls = cell.cost = 0
        told: list[Verdict] | None = None
        least = money = NEVER
        for window in cell.windows:
            if window.bucket == bucket:
                window.calls += calls
                window.cost += cost
            else:
                window.add(bucket, calls, cost)
        for state in cell.judged:
            window = state.window
            gap = bucket - window.bucket
            if gap < 0:
                window.add(bucket, calls, cost)
            else:
                if gap:
                    if gap > HALF_HOUR:
                        self._close(state)
                    window.advance(bucket)
                window.calls += calls
                window.cost += cost
            if state.tokens is not None:
                state.tokens.add(bucket, cell.tokens, 0)
            if (
                window.calls >= state.alarm_calls
                or window.cost >= state.alarm_cost
                or bucket >= state.alarm_bucket
            ):
                told = more(told, self._count(state, o, bucket))
            room = state.alarm_calls - window.calls
            if room < least:
                least = room
            room = state.alarm_cost - window.cost
            if room < money:
                money = room
        cell.tokens = 0
        if cell.novel:
            newcomers = (cell.key_state.novel if cell.key_state is not None else None) or {}
            cell.novel = [name for name in cell.novel if name in newcomers]
            for name in cell.novel:
                newcomers[name][1] += calls
        seen = cell.seen = cell.seen + calls
        if money < 2 * ROOM * cost:
            least = min(least, money * calls // cost)
        room = 1 if least < 4 else min(ROOM, least // 2)
        if seen >= 2 * ROOM:
            cell.room, cell.wait = room, 0
        else:
            cell.room, cell.wait = 1, room if seen >= AT_ONCE else 0
        owner = cell.owner
        if o is not None:
            owner.shape.learn(o.cost_nano_usd, o.input_tokens, o.output_tokens, self._least)
        if cell.finish:
            owner.finish.add(cell.finish)
            cell.finish = {}
        return told

    def _count(
        self, state: SeriesState, o: Observation | None, bucket: int
    ) -> list[Verdict] | None:
        """Learn what is due, ask the judges of counts, and set the next alarm."""
        told: list[Verdict] | None = None
        profile = state.profile
        if profile is not None and profile.due(bucket):
            profile.roll(state.window, bucket, suspect=self._suspect(state))
        view = View(self.now, bucket, state, expected=self._factor(state.series))
        told = self._ask(Occasion.COUNT, o, view)
        if state.novel:
            told = more(told, self._combiner.review(view))
        window = state.window
        state.alarm_calls = window.calls + min(view.room_calls, NEVER - window.calls)
        state.alarm_cost = window.cost + min(view.room_cost, NEVER - window.cost)
        state.alarm_bucket = bucket - bucket % HALF_HOUR + HALF_HOUR
        return told

    def _close(self, state: SeriesState) -> None:
        """Learn the last half-hour before a silence, which the window is about to forget."""
        if state.profile is not None:
            end = (state.window.bucket // HALF_HOUR + 1) * HALF_HOUR
            state.profile.roll(state.window, end, suspect=self._suspect(state))

    def _suspect(self, state: SeriesState) -> bool:
        return any(
            e.tier >= Tier.CRITICAL and self.now - e.since < SUSPECT_SECONDS
            for e in state.evidence.values()
        )

    def _factor(self, series: Series) -> float:
        factor = 1.0
        for start, end, times, scope in self._expected:
            if start <= self.now <= end and scope.matches(series.dimension, series.value):
                factor = max(factor, times) if times >= 1 else min(factor, times)
        return factor

    def _view(self, cell: Cell, bucket: int) -> View:
        owner = cell.owner
        return View(self.now, bucket, owner.state, owner, cell.provider)

    def _repeated(
        self, cell: Cell, o: Observation, fingerprint: str, failed: bool, bucket: int
    ) -> list[Verdict] | None:
        table = cell.owner.repeats
        entry = table.hit(fingerprint, o.ts, o.fingerprint_kind or "text", failed)
        count = entry.now + entry.before
        if count >= SHARED_LEAST:
            self._repeating[cell.owner.state.series] = o.ts
        if count < 4 and not table.others:
            return None
        told = self._book(cell, o, bucket)
        view = self._view(cell, bucket)
        view.repeat, view.fingerprint = entry, fingerprint
        return more(told, self._ask(Occasion.REPEAT, o, view))

    def _grew(self, cell: Cell, o: Observation, growth: int, bucket: int) -> list[Verdict] | None:
        told = self._book(cell, o, bucket)
        view = self._view(cell, bucket)
        view.growth = growth
        view.since = cell.owner.repeats.growth[o.session or ""][4]
        return more(told, self._ask(Occasion.REPEAT, o, view))

    def _failed(self, cell: Cell, o: Observation, bucket: int) -> list[Verdict] | None:
        told = self._book(cell, o, bucket)
        own = o.status is not None and 400 <= o.status < 500 and o.status not in NOT_OWN
        for state in cell.error_states:
            state.failed(bucket // 6, own=own)
            view = View(self.now, bucket, state, cell.owner, cell.provider)
            told = more(told, self._ask(Occasion.FAILURE, o, view))
        return told

    def _new_cell(
        self, identity: tuple[Any, ...], o: Observation, bucket: int
    ) -> tuple[Cell, list[Verdict] | None]:
        registry = self._registry
        told = self._make_room() if registry.full else None
        cell = registry.cell(identity, o, bucket)
        total = registry.state(TOTAL, bucket)
        newcomers = [
            (total, Signal.NEW_MODEL, "model", o.model),
            (total, Signal.NEW_AGENT, "agent", o.agent),
        ]
        if cell.key_state is not None:
            newcomers.append((cell.key_state, Signal.NEW_KEY_MODEL, "model", o.model))
        for state, signal, kind, value in newcomers:
            if value is not None and value not in members(state, kind):
                told = more(told, self._join(state, signal, kind, value, o, bucket))
                if signal is Signal.NEW_KEY_MODEL and f"model:{value}" in (state.novel or {}):
                    cell.novel.append(f"model:{value}")
        return cell, told

    def _make_room(self) -> list[Verdict] | None:
        """Let go of what is idle the longest; what waits in a cell is booked before."""
        told: list[Verdict] | None = None
        registry, now = self._registry, int(self.now) // 10
        registry.drop_strays(PART)
        for _ in range(ROUNDS):
            if not registry.full:
                break
            for identity, cell in registry.idle(PART):
                told = more(told, self._book(cell, None, now))
                registry.drop(identity, cell)
        return told

    def _client(self, cell: Cell, o: Observation, client: str, bucket: int) -> list[Verdict] | None:
        """A call from a network that is new to its key, or was lately."""
        state = cell.key_state
        if state is None:
            return None
        name = f"client:{client}"
        if state.novel is not None and name in state.novel:
            entry = state.novel[name]
            entry[1] += 1
            if o.ts - entry[0] > HOLD[Signal.NEW_CLIENT]:
                del state.novel[name]
                members(state, "client")[client] = o.ts
            return None
        told = self._join(state, Signal.NEW_CLIENT, "client", client, o, bucket)
        if state.novel is not None and name in state.novel:
            members(state, "client").pop(client, None)
        return told

    def _join(
        self, state: SeriesState, signal: Signal, kind: str, value: str, o: Observation, bucket: int
    ) -> list[Verdict] | None:
        known = members(state, kind)
        if len(known) >= self.settings.caps.members_per_series:
            del known[min(known, key=lambda name: (known[name], name))]
        known[value] = o.ts
        view = View(self.now, bucket, state, member=(signal, value))
        told = self._ask(Occasion.MEMBER, o, view)
        if signal in state.evidence and state.evidence[signal].last == self.now:
            if state.novel is None:
                state.novel = {}
            state.novel[f"{kind}:{value}"] = [o.ts, 1, state.window.calls]
            for name in [n for n, e in state.novel.items() if o.ts - e[0] > 3600.0 * 2]:
                del state.novel[name]
        return told

    def _ask(self, occasion: Occasion, o: Observation | None, view: View) -> list[Verdict] | None:
        told: list[Verdict] | None = None
        state = view.state
        for detector in self._by[occasion]:
            dimensions = detector.dimensions
            if dimensions and state.series.dimension not in dimensions:
                continue
            if state.off is not None and detector.signal in state.off:
                continue
            try:
                score = detector.observe(o, view)
            except Exception as error:
                self._fault(str(detector.signal), state, error)
                continue
            if score is not None:
                self._registry.marked[state.series] = state
                told = more(told, self._combiner.add(view, score))
        return told

    def _fault(self, name: str, state: SeriesState | None, error: Exception) -> None:
        fault = f"{name}: {type(error).__name__}"
        self.faults[fault] = self.faults.get(fault, 0) + 1
        if state is not None:
            state.off = (state.off or set()) | {name}


def _whole(value: float) -> int:
    """A count that a careless writer of observations left as a fraction, or out of bounds.

    >>> _whole(1.5), _whole(-3), _whole(1e300)
    (1, 0, 1000000000000000)
    """
    return int(min(max(value, 0), MOST)) if value == value else 0


def more(told: list[Verdict] | None, further: list[Verdict] | None) -> list[Verdict] | None:
    if not further:
        return told
    return further if not told else told + further
