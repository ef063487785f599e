"""Patterns of configured values: exact, with ``*``, or a regular expression.

Owns: their syntax and the refusal of expressions that can backtrack without
end. Must never: match text longer than a name may be.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

_MAX_TEXT = 512
_MAX_OPEN_REPEATS = 3
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


class Pattern:
    """A value of a ``match``: ``name``, ``name-*`` or ``~expression``.

    Raises :class:`ValueError` for an expression that doesn't compile or that
    could take exponential time (a repeat inside a repeat, a back-reference).

    >>> Pattern("team-*").matches("team-a"), Pattern("team-a").matches("team-b")
    (True, False)
    >>> Pattern("~(a+)+$")
    Traceback (most recent call last):
    ...
    ValueError: a repeat inside a repeat can backtrack without end
    """

    __slots__ = ("_regex", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._regex = _compiled(text)

    @property
    def exact(self) -> bool:
        """Whether only one value can match."""
        return self._regex is None

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        if self._regex is None:
            return value == self.text
        return self._regex.fullmatch(value[:_MAX_TEXT]) is not None


@lru_cache(maxsize=4096)
def _compiled(text: str) -> re.Pattern[str] | None:
    if text.startswith("~"):
        expression = text[1:]
        if len(expression) > 256:
            raise ValueError("a regular expression may be 256 characters long at most")
        try:
            tree = sre_parser.parse(expression)
            if _open_repeats(tree, inside=False) > _MAX_OPEN_REPEATS:
                raise ValueError(f"more than {_MAX_OPEN_REPEATS} open repeats are too slow")
            return re.compile(expression, re.DOTALL)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
    if "*" not in text:
        return None
    pieces = [re.escape(piece) for piece in re.split(r"\*+", text)]
    if len(pieces) > _MAX_OPEN_REPEATS + 1:
        raise ValueError(f"at most {_MAX_OPEN_REPEATS} `*` in one value")
    return re.compile(".*".join(pieces), re.DOTALL)


def _open_repeats(tree: Any, *, inside: bool, looping: bool = False) -> int:
    """How many repeats without a small bound stand in an expression.

    ``inside`` any repeat, another one multiplies; inside a long one (``looping``)
    alternatives do too.
    """
    found = 0
    for operator, argument in tree:
        if operator in (sre.GROUPREF, sre.GROUPREF_EXISTS):
            raise ValueError("a back-reference can backtrack without end")
        if operator is sre.BRANCH and looping:
            raise ValueError("alternatives inside a repeat can backtrack without end")
        if operator in _REPEATS:
            low, high, body = argument
            variable = high > 1 and low != high
            if inside and variable:
                raise ValueError("a repeat inside a repeat can backtrack without end")
            many = high > 16
            found += int(many and variable)
            found += _open_repeats(body, inside=inside or high > 1, looping=looping or many)
        else:
            for part in _bodies(operator, argument):
                found += _open_repeats(part, inside=inside, looping=looping)
    return found


def _bodies(operator: Any, argument: Any) -> list[Any]:
    if operator is sre.SUBPATTERN:
        return [argument[-1]]
    if operator is sre.BRANCH:
        return list(argument[1])
    if operator in (sre.ASSERT, sre.ASSERT_NOT):
        return [argument[1]]
    if operator is sre.ATOMIC_GROUP:
        return [argument]
    return []
