"""Two engines' memories as one: a running one, and one that lived through an import.

Owns: which of two memories of a series is kept, in the words of ``Engine.dump``.
Must never: change what is under way in the running engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detection.profile import RECORD_DAYS

Dump = dict[str, Any]

#: Alarms were set by the records as they were; at zero they are set again at once.
_ANEW = {"alarms": [0, 0, 0]}


def merged(running: Dump, imported: Mapping[str, Any]) -> Dump:
    """The running engine's dump with what the imported one knows besides."""
    learned = _by_series(imported["states"])
    lived = _by_series(running["states"])
    owners = _by_series(imported["owners"])
    lived_owners = _by_series(running["owners"])
    cells = {repr(cell[0]): cell for cell in imported["cells"]}
    cells.update((repr(cell[0]), cell) for cell in running["cells"])
    return {
        **running,
        "now": max(running["now"], imported["now"]),
        "states": [
            _state(state, learned[name]) if name in learned else state
            for name, state in lived.items()
        ]
        + [{**state, **_ANEW} for name, state in learned.items() if name not in lived],
        "owners": [
            _owner(owner, owners[name]) if name in owners else owner
            for name, owner in lived_owners.items()
        ]
        + [owner for name, owner in owners.items() if name not in lived_owners],
        "cells": list(cells.values()),
    }


def _by_series(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], Mapping[str, Any]]:
    return {tuple(row["series"]): row for row in rows}


def _state(lived: Mapping[str, Any], learned: Mapping[str, Any]) -> Dump:
    state = dict(lived)
    if lived["profile"] is not None and learned["profile"] is not None:
        state["profile"] = _profile(lived["profile"], learned["profile"])
        state |= _ANEW
    known = {kind: dict(held) for kind, held in (learned["members"] or {}).items()}
    for kind, held in (lived["members"] or {}).items():
        known[kind] = {**known.get(kind, {}), **held}
    state["members"] = known or None
    if lived["novel"]:
        named = {f"{kind}:{value}" for kind, held in known.items() for value in held}
        state["novel"] = {k: v for k, v in lived["novel"].items() if k not in named} or None
    return state


def _profile(lived: Mapping[str, Any], learned: Mapping[str, Any]) -> Dump:
    """Days of both, of a day known to both the busier; records of the last four weeks."""
    days = {row[0]: row for row in learned["days"]}
    for row in lived["days"]:
        other = days.get(row[0])
        days[row[0]] = row if other is None or row[1] >= other[1] else other
    ordered = [days[day] for day in sorted(days)]
    recent = [row[3:] for row in ordered if row[0] > ordered[-1][0] - RECORD_DAYS]
    return {
        **lived,
        "first": min(lived["first"], learned["first"]),
        "days": ordered,
        "records": [max(column) for column in zip(*recent, strict=True)]
        if recent
        else list(lived["records"]),
        "learned": lived["learned"] or learned["learned"],
        "slots": _slots(lived["slots"], learned["slots"]),
    }


def _slots(lived: list[float] | None, learned: list[float] | None) -> list[float] | None:
    """Of each hour of the week the memory with the greater weight."""
    if lived is None or learned is None:
        return lived or learned
    return [
        value
        for place in range(0, len(lived), 3)
        for value in max(
            lived[place : place + 3], learned[place : place + 3], key=lambda slot: slot[0]
        )
    ]


def _owner(lived: Mapping[str, Any], learned: Mapping[str, Any]) -> Dump:
    owner = dict(lived)
    if learned["shape"]["calls"] > lived["shape"]["calls"]:
        owner["shape"] = learned["shape"]
    if sum(learned["finish"]["usual"].values()) > sum(lived["finish"]["usual"].values()):
        owner["finish"] = {**lived["finish"], "usual": learned["finish"]["usual"]}
    return owner
