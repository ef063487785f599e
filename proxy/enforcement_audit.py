"""Who did what, when, why, and what was so before and after.

Owns: the audit trail's files and their rotation. Must never: hold a secret, or
be rewritten; lines are only added.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

_MOST_BYTES = 8 * 2**20
_FILES = 5


class AuditTrail:
    """JSON lines in ``audit.jsonl``, the older ones in ``audit.1.jsonl`` and on.

    Every replica keeps the whole trail: it writes what it sees change, wherever
    the change was made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def write(self, entry: dict[str, Any]) -> None:
        """Add one entry. Raises :class:`OSError` where the disk takes none."""
        path = self._path(0)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            for number in range(_FILES - 1, 0, -1):
                if self._path(number - 1).exists():
                    self._path(number - 1).replace(self._path(number))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, orjson.dumps(entry) + b"\n")
        finally:
            os.close(descriptor)

    def read(self, limit: int = 100, before: float | None = None) -> list[dict[str, Any]]:
        """The newest entries first, those before a moment."""
        found: list[dict[str, Any]] = []
        for number in range(_FILES):
            path = self._path(number)
            if not path.exists():
                break
            for line in reversed(path.read_bytes().splitlines()):
                try:
                    entry = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if before is None or entry.get("at", 0) < before:
                    found.append(entry)
                if len(found) >= limit:
                    return found
        return found

    def _path(self, number: int) -> Path:
        return self._folder / ("audit.jsonl" if number == 0 else f"audit.{number}.jsonl")
