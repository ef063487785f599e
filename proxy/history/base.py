"""The contract of an importer.

Owns: the value that one importer file defines. Must never: read a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.history.rows import Options, Row


@dataclass(frozen=True, slots=True)
class Importer:
    """One format: its name, how a record betrays it, and what a record means.

    ``recognises`` sees the first record of a file. ``convert`` yields the rows
    of one record, none where the record is not about a model call, and raises
    BadRowError where it is and can't be read. Both are pure.
    """

    name: str
    title: str
    recognises: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Mapping[str, Any], Options], Iterable[Row]]
