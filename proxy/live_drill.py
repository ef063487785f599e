"""A fire drill on live traffic, in shadow: an incident that only a copy of detection sees.

Owns: the copies, one with the incident and one without, fed with the calls as they
finish, and the incident's own calls at their own pace. Must never: record, count or
send a call of its own, act on anything, or touch the engine that judges traffic.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from detection.backtest import Backtest
from detection.engine import Engine
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation
from proxy.history.drill import Found, Replay, found_by
from proxy.history.incidents import CHANGES, MAKERS, IncidentPlan

_log = structlog.get_logger("tokenweir.drill")
#: How long the first call of the agent is waited for.
WAIT_SECONDS = 120.0
MOST_MINUTES = 60.0
_PULSE_SECONDS = 0.05


class DrillBusyError(RuntimeError):
    """Another drill is being played."""


class LiveDrills:
    """The drills of one worker: at most one at a time.

    ``state`` is ``idle``, ``waiting`` (for a call to make the incident of), ``playing``,
    ``done``, ``failed`` or ``no_traffic``; ``found`` is what the last one came to up to now.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        settings: Callable[[], tuple[DetectionSettings, PolicySettings]],
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._now = now
        self._drill: _Drill | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = "idle"
        self.found: Found | None = None

    def observe(self, call: Observation) -> None:
        """Take a finished call of live traffic."""
        if self._drill is not None:
            self._drill.take(call)

    def start(self, plan: IncidentPlan) -> None:
        """Begin; raises DrillBusyError while another is being played."""
        if self._task is not None and not self._task.done():
            raise DrillBusyError("a drill is being played; wait for its end, or end it")
        self.state, self.found = "waiting", None
        self._task = asyncio.create_task(self._play(plan), name="drill")

    async def stop(self) -> None:
        """End the drill that is being played, if one is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _play(self, plan: IncidentPlan) -> None:
        ended = "done"
        try:
            drill = self._drill = _Drill(plan, await self._copy(), await self._copy())
            began = self._now()
            while drill.pattern is None:
                if self._now() - began > WAIT_SECONDS:
                    ended = "no_traffic"
                    return
                await asyncio.sleep(_PULSE_SECONDS)
            self.state = "playing"
            end = self._now() + 60 * min(plan.minutes, MOST_MINUTES)
            drill.begin(self._now(), end)
            while self._now() < end and (self.found is None or self.found.action is None):
                drill.make(self._now())
                self.found = drill.found()
                await asyncio.sleep(_PULSE_SECONDS)
        except Exception:
            _log.exception("drill_failed", kind=plan.kind)
            ended = "failed"
        finally:
            # The copies go with it.
            self._drill, self.state = None, ended

    async def _copy(self) -> Replay:
        """Detection and policy as they are now; calls are served while it is made."""
        saved: dict[str, Any] = {"cells": [], "states": [], "owners": []}
        for name, part in self._engine().dump_in_parts():
            if name in saved:
                saved[name] += part
            else:
                saved[name] = part
            await asyncio.sleep(0)
        copy = Backtest(*self._settings())
        await asyncio.to_thread(copy.engine.load, saved)
        return Replay(copy)


class _Drill:
    """One incident on its way through the two copies."""

    def __init__(self, plan: IncidentPlan, played: Replay, usual: Replay) -> None:
        self.plan = plan
        self.pattern: Observation | None = None
        self._played = played
        self._usual = usual
        self._chance = random.Random(plan.kind)
        self._number = 0
        self._next = self._start = self._end = float("inf")

    def begin(self, now: float, end: float) -> None:
        """The incident begins."""
        self._next, self._start, self._end = now, now, end

    def take(self, call: Observation) -> None:
        """A live call goes through both copies, changed where the incident changes it."""
        fits = call.agent is not None and call.agent == (self.plan.agent or call.agent)
        if self.pattern is None and fits and call.cost_nano_usd:
            self.pattern = call
        self._usual.feed(call)
        change = CHANGES.get(self.plan.kind)
        own = self.pattern is not None and call.agent == self.pattern.agent
        if change is not None and own and call.ts >= self._start:
            share = min(1.0, (call.ts - self._start) / (self._end - self._start))
            self._played.feed(change(call, self.plan, share), own=True)
        else:
            self._played.feed(call)

    def make(self, now: float) -> None:
        """The incident's own calls that are due by now."""
        maker = MAKERS.get(self.plan.kind)
        if maker is None or self.pattern is None:
            return
        while self._next <= now:
            self._number += 1
            call = maker(self.pattern, self.plan, self._next, self._number, self._chance)
            self._played.feed(call, own=True)
            self._next += self._chance.expovariate(self.plan.calls_per_second)

    def found(self) -> Found:
        """What the copy with the incident told that the other did not."""
        found = found_by(self.plan, self._played, self._usual)
        agent = self.pattern.agent if self.pattern is not None else None
        return replace(found, plan=self.plan.model_copy(update={"agent": agent}))
