"""Tables that forget their oldest entries.

Owns: how room is made in one. Must never: empty a table at once, or keep count of use.
"""

from __future__ import annotations

from itertools import islice
from typing import Any


def make_room(table: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries of a table that holds ``most``.

    Some at a time: a dict passes over all it has dropped to find its oldest entry, so
    that dropping them one by one takes longer the larger it is.

    >>> table = dict.fromkeys("abc")
    >>> make_room(table, 4), make_room(table, 3), list(table)
    (None, None, ['b', 'c'])
    """
    if len(table) >= most:
        for name in list(islice(table, most // 256 + 1)):
            del table[name]
