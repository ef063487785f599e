"""The Lua scripts of ``lua/``, read once and known by their hash.

Owns: finding script sources beside this file. Must never: build a script from
data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One script's source and the SHA-1 by which the store knows it."""

    name: str
    source: str
    sha: str

    @classmethod
    def of(cls, name: str, source: str) -> Script:
        """A script from its text."""
        digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        return cls(name, source, digest)


@cache
def load(name: str) -> Script:
    """The script ``lua/<name>.lua``."""
    return Script.of(name, (_FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
