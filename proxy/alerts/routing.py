"""Which receivers hear of an incident, and with what it shares a message.

Owns: the routing tree, flattened once, and group keys. Must never: look at a
clock or at what was already sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from detection.types import Tier
from proxy.alerts.matchers import Matcher, all_hold
from proxy.alerts.settings import QuietHours, RouteSettings
from proxy.incidents_model import short_hash


@dataclass(frozen=True, slots=True)
class Route:
    """One place in the tree with everything it inherits."""

    path: str
    receiver: str | None
    matchers: tuple[Matcher, ...]
    min_tier: Tier
    go_on: bool
    group_by: tuple[str, ...]
    group_wait_seconds: float
    group_interval_seconds: float
    repeat_interval_seconds: float
    quiet_hours: tuple[QuietHours, ...]
    children: tuple[Route, ...] = ()

    def takes(self, labels: Mapping[str, str], tier: Tier) -> bool:
        """Whether an incident belongs here."""
        return tier >= self.min_tier and all_hold(self.matchers, labels)

    def group_key(self, labels: Mapping[str, str]) -> str:
        """Which message of this route an incident goes into."""
        return short_hash(self.path, *(f"{n}={labels.get(n, '')}" for n in self.group_by))


#: What the top of the tree has where it doesn't say otherwise.
_TOP = Route(
    path="",
    receiver=None,
    matchers=(),
    min_tier=Tier.WARNING,
    go_on=False,
    group_by=("incident",),
    group_wait_seconds=0.5,
    group_interval_seconds=30.0,
    repeat_interval_seconds=14_400.0,
    quiet_hours=(),
)


def build_routes(settings: RouteSettings, parent: Route = _TOP, path: str = "0") -> Route:
    """The tree with every setting filled in from above."""
    given = {
        name: value
        for name in (
            "receiver",
            "group_by",
            "group_wait_seconds",
            "group_interval_seconds",
            "repeat_interval_seconds",
            "quiet_hours",
        )
        if (value := getattr(settings, name)) is not None
    }
    if settings.min_tier is not None:
        given["min_tier"] = Tier[settings.min_tier.upper()]
    own = replace(
        parent, path=path, matchers=settings.parsed(), go_on=settings.go_on, children=(), **given
    )
    children = tuple(
        build_routes(child, own, f"{path}.{place}") for place, child in enumerate(settings.routes)
    )
    return replace(own, children=children)


def routes_of(root: Route, labels: Mapping[str, str], tier: Tier) -> list[Route]:
    """The routes that take an incident: the deepest that match, as in Alertmanager.

    A route whose children all pass takes it itself; a child that matches ends
    the search among its siblings unless it says ``continue``.
    """
    return list(_walk(root, labels, tier))


def _walk(route: Route, labels: Mapping[str, str], tier: Tier) -> Iterator[Route]:
    if not all_hold(route.matchers, labels):
        return
    taken = False
    for child in route.children:
        found = list(_walk(child, labels, tier))
        if found:
            yield from found
            taken = True
            if not child.go_on:
                return
    if not taken and route.receiver is not None and tier >= route.min_tier:
        yield route
