"""Observations as JSON lines: the one place that knows how they are spelled.

Owns: encoding and decoding of docs/observation.md. Must never: open a file,
or guess a value that isn't there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from detection.types import Observation

SCHEMA = "tokenweir.observation"
SCHEMA_VERSION = 1
FIELDS = Observation._fields

_APPEND_NEWLINE = orjson.OPT_APPEND_NEWLINE
_dumps = orjson.dumps


class Encoder:
    """Spells observations, for one thread.

    It fills the same row again and again: to make one a call takes longer than to
    write it down.
    """

    __slots__ = ("_row",)

    def __init__(self) -> None:
        self._row: dict[str, Any] = dict.fromkeys(FIELDS)

    def __call__(self, observation: Observation) -> bytes:
        """One line, newline included, every field in the schema's order."""
        row = self._row
        row.update(zip(FIELDS, observation))  # noqa: B905
        try:
            return _dumps(row, option=_APPEND_NEWLINE)
        except TypeError:
            return _dumps(_plain(observation), default=str, option=_APPEND_NEWLINE)


def _plain(observation: Observation) -> dict[str, Any]:
    """The same with text that UTF-8 can carry and integers that JSON can."""
    row: dict[str, Any] = {}
    values: list[Any] = list(observation)
    for name, value in zip(FIELDS, values, strict=True):
        if isinstance(value, str):
            row[name] = _text(value)
        elif isinstance(value, Mapping):
            row[name] = {_text(str(k)): _text(str(v)) for k, v in value.items()}
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            row[name] = None
        elif isinstance(value, tuple):
            row[name] = [_text(str(v)) for v in value]
        else:
            row[name] = value
    return row


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def decode(line: bytes | str) -> Observation | None:
    """One observation, or ``None`` for a segment's header.

    Fields of a later version are left out, missing ones are unknown.

    Raises
    ------
    ValueError
        Where the line is no observation.
    """
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if "ts" not in row:
        if row.get("schema") == SCHEMA:
            return None
        raise ValueError("no ts")
    return from_row(row)


def from_row(row: Mapping[str, Any]) -> Observation:
    """An observation from the members of one object of the schema."""
    given: dict[str, Any] = {
        name: row[name] for name in FIELDS if name in row and row[name] is not None
    }
    given["ts"] = float(given["ts"])
    given.setdefault("id", "")
    if "finish_reasons" in given:
        given["finish_reasons"] = tuple(given["finish_reasons"])
    return Observation(**given)
