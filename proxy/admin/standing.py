"""How each series stands now: in an incident, held back, learning, or fine.

Owns: joining the gate's actions, the open incidents and the engine's view. Must
never: ask the store; all of it is known locally.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from detection.engine import SeriesView
from detection.types import Action, ActionKind, Mode, Series, Tier
from proxy.admin.deps import AdminDeps

_HELD_BACK = {
    ActionKind.DISABLE_KEY: "disabled",
    ActionKind.BLOCK: "blocked",
    ActionKind.CUT_STREAMS: "blocked",
    ActionKind.THROTTLE: "throttled",
    ActionKind.DOWNGRADE: "downgraded",
}
_WORST_FIRST = ("disabled", "blocked", "throttled", "downgraded")


class Standing:
    """One moment's look at every series that stands out."""

    def __init__(self, deps: AdminDeps) -> None:
        self._engine = deps.engine
        self._now = deps.clock()
        self.learning_days = 0
        if deps.engine is not None:
            self.learning_days = deps.engine.settings.learning.days
        self.actions: list[Action] = list(deps.gate.actions()) if deps.gate else []
        self._held: dict[Series, set[str]] = {}
        for action in self.actions:
            if action.mode == Mode.ENFORCE and action.kind in _HELD_BACK:
                self._held.setdefault(action.series, set()).add(_HELD_BACK[action.kind])
        self._incidents: dict[Series, Any] = {}
        active: Iterable[Any] = deps.incidents.known_active() if deps.incidents else ()
        for incident in active:
            known = self._incidents.get(incident.series)
            if known is None or incident.tier > known.tier:
                self._incidents[incident.series] = incident

    def of(self, series: Series) -> dict[str, Any]:
        """``{state, tier, incident, since_days}`` of a series.

        ``state`` is ``disabled``, ``blocked``, ``throttled``, ``downgraded``,
        ``incident``, ``learning``, ``ok`` or ``quiet`` (not seen by detection
        since the start).
        """
        return self._of(series, self._seen(series))

    def _of(self, series: Series, view: SeriesView | None) -> dict[str, Any]:
        held = self._held.get(series, set())
        incident = self._incidents.get(series)
        state = next((word for word in _WORST_FIRST if word in held), "")
        if not state and incident is not None:
            state = "incident"
        return {
            "state": state or _learned(view),
            "tier": incident.tier.label if incident is not None else Tier.NONE.label,
            "incident": incident.id if incident is not None else None,
        }

    def _seen(self, series: Series) -> SeriesView | None:
        return self._engine.view(series, self._now) if self._engine is not None else None

    def row(self, series: Series) -> dict[str, Any]:
        """What a table tells of a series: its state, its usual calls in half an hour at
        this time, and the most ever in five minutes."""
        view = self._seen(series)
        return {
            **self._of(series, view),
            "usual_calls_half_hour": None if view is None else view.usual_calls_half_hour,
            "record_calls_5_minutes": None
            if view is None
            else view.records.get("calls_300") or None,
        }

    def view(self, series: Series) -> dict[str, Any] | None:
        """What detection knows of a series, ``None`` where it was not seen yet."""
        view = self._seen(series)
        if view is None:
            return None
        found = asdict(view)
        found.pop("series", None)
        return {**found, "learning_days": self.learning_days}


def _learned(view: SeriesView | None) -> str:
    if view is None:
        return "quiet"
    return "learning" if view.state == "learning" else "ok"
