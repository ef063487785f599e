"""Conditions on an incident's labels, in Alertmanager's words.

Owns: ``name="value"``, ``!=``, ``=~``, ``!~`` and their reading. Must never:
run a pattern that is long enough to be used against us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_FORM = re.compile(r"""\s*([a-z_]+)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))\s*""")
_LONGEST = 256
#: Repeats of groups that hold repeats take exponential time on unlucky values.
_NESTED = re.compile(r"[+*}]\)[+*{]")

LABELS = frozenset(
    {
        "incident", "fingerprint", "signal", "family", "tier", "dimension", "scope", "project",
        "key", "agent", "model", "endpoint", "client",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition. A label that is missing counts as empty."""

    label: str
    operator: str
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet it; patterns match the whole value."""
        found = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (found == self.value) == (self.operator == "=")
        return (_compiled(self.value).fullmatch(found[:1_024]) is not None) == (
            self.operator == "=~"
        )

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.label}{self.operator}"{escaped}"'


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@lru_cache(maxsize=512)
def parse_matcher(text: str) -> Matcher:
    """Read one condition.

    Raises
    ------
    ValueError
        Naming what is wrong with it.

    Examples
    --------
    >>> parse_matcher('tier=~"critical|emergency"').holds({"tier": "critical"})
    True
    >>> parse_matcher("project!=web").holds({"project": "web"})
    False
    """
    found = _FORM.fullmatch(text)
    if found is None or len(text) > _LONGEST:
        raise ValueError(f'{text[:60]!r} is no matcher; write it as tier="critical"')
    label, operator = found[1], found[2]
    if label not in LABELS:
        raise ValueError(f"no such label: {label!r}; there are {', '.join(sorted(LABELS))}")
    quoted = found[3]
    value = re.sub(r"\\(.)", r"\1", quoted) if operator in ("=", "!=") and quoted else quoted
    value = found[4] if value is None else value
    if operator in ("=~", "!~"):
        if _NESTED.search(value):
            raise ValueError(f"{value!r} repeats a repeat; that can take for ever")
        try:
            _compiled(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return Matcher(label, operator, value)


def all_hold(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether every condition holds; none at all hold everywhere."""
    return all(matcher.holds(labels) for matcher in matchers)
