"""Which tags all calls of a series carried lately.

Owns: a bounded memory of common tags, for policies that match on tags. Must
never: keep more than names and values that the calls themselves brought.
"""

from __future__ import annotations

from collections.abc import Mapping

from detection.types import Dimension, Observation, Series, unpair
from proxy.bounded import make_room

_LATELY_SECONDS = 900.0
_MOST = 10_000
_DIMENSIONS = (
    Dimension.KEY,
    Dimension.AGENT,
    Dimension.PROJECT,
    Dimension.USER,
    Dimension.SESSION,
    Dimension.CLIENT,
)
_OWNERS = {Dimension.KEY_MODEL: Dimension.KEY, Dimension.AGENT_MODEL: Dimension.AGENT}


class CommonTags:
    """Tags by series, each since at most a quarter of an hour.

    >>> tags = CommonTags()
    >>> for team in ("a", "b"):
    ...     tags.observe(Observation(1.0, "r", agent="x", tags={"team": team, "env": "prod"}))
    >>> tags.of(Series("agent", "x"))
    {'env': 'prod'}
    """

    def __init__(self) -> None:
        self._held: dict[Series, tuple[float, dict[str, str]]] = {}

    def observe(self, call: Observation) -> None:
        """Take one finished call."""
        for dimension in _DIMENSIONS:
            value = getattr(call, dimension)
            if value is None:
                continue
            series = Series(dimension, value)
            held = self._held.get(series)
            if held is None or call.ts - held[0] > _LATELY_SECONDS:
                self._held.pop(series, None)
                make_room(self._held, _MOST)
                self._held[series] = (call.ts, dict(call.tags))
            elif held[1]:
                for name in [n for n, v in held[1].items() if call.tags.get(n) != v]:
                    del held[1][name]

    def of(self, series: Series) -> Mapping[str, str]:
        """The tags that all its calls carried; a tag's own series carries itself."""
        if series.dimension == Dimension.TAG:
            name, _, value = series.value.partition("=")
            return {name: value}
        owner = _OWNERS.get(Dimension(series.dimension))
        if owner is not None:
            series = Series(owner, unpair(series.value)[0])
        held = self._held.get(series)
        return held[1] if held is not None else {}
