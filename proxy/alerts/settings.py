"""The YAML section ``alerts``.

Owns: what a person may set about incidents, routing and receivers, and the
checks that need no network. Must never: connect to anything.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, time
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from proxy.alerts.matchers import Matcher, parse_matcher
from proxy.alerts.receivers import AnyReceiverSettings

TierName = Literal["info", "warning", "critical", "emergency"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"no such time zone: {name!r}; use a name like Europe/Berlin") from error
    return name


def _clock(text: str) -> str:
    try:
        time.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of day; write it as 22:00") from error
    return text


class IncidentSettings(_Section):
    """How long incidents live."""

    quiet_seconds: float = Field(
        600, ge=0, description="An incident resolves by itself after this long without a signal."
    )
    stale_seconds: float = Field(
        21_600, ge=60, description="It resolves after this long without any news of its signals."
    )
    reopen_seconds: float = Field(
        3_600, ge=0, description="The same trouble within this time reopens a resolved incident."
    )
    trust_seconds: float = Field(
        604_800,
        ge=0,
        description="After a dismissal the same trouble stays dismissed this long, unless worse.",
    )


class QuietHours(_Section):
    """When only the worst may disturb."""

    days: tuple[Weekday, ...] = Field(WEEKDAYS, description="Days on which it starts.")
    start: str = Field("22:00", description="Time of day at which it starts.")
    end: str = Field("07:00", description="Time of day at which it ends; may be the next morning.")
    timezone: str = Field("UTC", description="Time zone of both.")
    let_through: TierName = Field(
        "critical", description="From this tier on, alerts come through all the same."
    )

    _check_zone = field_validator("timezone")(_zone)
    _check_times = field_validator("start", "end")(_clock)


class RouteSettings(_Section):
    """Which incidents go where. The first child that matches takes an incident."""

    receiver: str | None = Field(
        None, description="Name of a receiver; the parent's where it is left out."
    )
    matchers: tuple[str, ...] = Field(
        (),
        description='Conditions that must all hold, as in Alertmanager: tier="critical", '
        'project=~"team-.*", signal!="drift". Labels: tier, signal, family, project, dimension, '
        "scope, key, agent, model, endpoint, client, fingerprint, incident.",
    )
    min_tier: TierName | None = Field(None, description="Only incidents of this tier or worse.")
    go_on: bool = Field(
        False, alias="continue", description="Go on to the next route after this one matched."
    )
    group_by: tuple[str, ...] | None = Field(
        None, description="Labels that put incidents into one message; [incident] keeps each apart."
    )
    group_wait_seconds: float | None = Field(
        None, ge=0, description="How long a new group waits for more before its first message."
    )
    group_interval_seconds: float | None = Field(
        None, ge=0, description="Least time between two messages of one group about changes."
    )
    repeat_interval_seconds: float | None = Field(
        None, ge=60, description="How often an unchanged message is repeated while it stands."
    )
    quiet_hours: tuple[QuietHours, ...] | None = Field(
        None, description="Times at which this route keeps still below a tier."
    )
    routes: tuple[RouteSettings, ...] = Field((), description="Narrower routes, tried first.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("matchers")
    @classmethod
    def _parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_matcher(text)
        return value

    def parsed(self) -> tuple[Matcher, ...]:
        """The matchers, read."""
        return tuple(parse_matcher(text) for text in self.matchers)

    def receivers(self) -> set[str]:
        """All receiver names in this tree."""
        names = {self.receiver} if self.receiver else set()
        return names.union(*(route.receivers() for route in self.routes))


class InhibitRule(_Section):
    """While a source stands, its targets keep still."""

    source_matchers: tuple[str, ...] = Field(description="Conditions on what inhibits.")
    target_matchers: tuple[str, ...] = Field(description="Conditions on what is inhibited.")
    equal: tuple[str, ...] = Field((), description="Labels that both must have alike.")

    @field_validator("source_matchers", "target_matchers")
    @classmethod
    def _parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_matcher(text)
        return value


class CooldownSettings(_Section):
    """How long the same signal on the same scope is not told again."""

    default_seconds: float = Field(3_600, ge=0, description="For signals not named below.")
    signals: dict[str, float] = Field(
        default_factory=dict, description="Seconds by signal, e.g. {drift: 86400}."
    )


class MaintenanceWindow(_Section):
    """A planned time in which matching incidents are recorded and not sent."""

    start: datetime = Field(description="Start, ISO 8601.")
    end: datetime = Field(description="End, ISO 8601.")
    matchers: tuple[str, ...] = Field((), description="Which incidents; all where left out.")
    comment: str = Field("", description="What is going on.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a maintenance window must end after it starts")
        for text in self.matchers:
            parse_matcher(text)
        return self


class Schedule(_Section):
    """When something is sent by itself."""

    every: Literal["day", "week", "month"] = Field(description="How often.")
    at: str = Field("08:00", description="Time of day.")
    weekday: Weekday = Field("mon", description="Day of a weekly one.")
    timezone: str = Field("UTC", description="Time zone of the time of day.")
    receiver: str = Field(description="Name of the receiver it goes to.")

    _check_zone = field_validator("timezone")(_zone)
    _check_time = field_validator("at")(_clock)


class DigestSettings(Schedule):
    """A list of what happened, in place of single messages."""

    tiers: tuple[TierName, ...] = Field(
        ("info",), description="Incidents of these tiers come in the digest, not one by one."
    )


class ReportSchedule(Schedule):
    """A report over the period that just ended."""

    format: Literal["html", "csv", "pdf", "json"] = Field("html", description="Form of the report.")
    project: str | None = Field(None, description="Only this project.")


class OutboxSettings(_Section):
    """How delivery is tried."""

    attempts: int = Field(20, ge=1, le=100, description="Tries before a message is a dead letter.")
    first_wait_seconds: float = Field(1.0, gt=0, description="Wait after the first failure.")
    longest_wait_seconds: float = Field(300.0, gt=0, description="Longest wait between tries.")
    timeout_seconds: float = Field(10.0, gt=0, description="Limit of one try.")
    parallel: int = Field(8, ge=1, le=64, description="Messages under way at once.")
    answer_bytes: int = Field(65_536, ge=1_024, description="Most of a receiver's answer read.")


class AlertsSettings(_Section):
    """Who is told what, when and how."""

    enabled: bool = Field(True, description="Whether anything is sent at all.")
    external_url: str = Field(
        "", description="Where people reach the dashboard; links in messages begin with it."
    )
    receivers: tuple[AnyReceiverSettings, ...] = Field(
        (), description="Where messages go; each has a name, a type and that type's settings."
    )
    route: RouteSettings = Field(
        default_factory=lambda: RouteSettings(), description="The top of the routing tree."
    )
    inhibit_rules: tuple[InhibitRule, ...] = Field((), description="What keeps what still.")
    inhibit_explained: bool = Field(
        True,
        description="A wider incident keeps still while one of a narrower scope stands that its "
        "root cause names, such as the total's beside the key's.",
    )
    cooldown: CooldownSettings = Field(
        default_factory=CooldownSettings, description="Rest after a message, by signal and scope."
    )
    maintenance: tuple[MaintenanceWindow, ...] = Field((), description="Planned quiet times.")
    digests: tuple[DigestSettings, ...] = Field((), description="Lists sent by schedule.")
    reports: tuple[ReportSchedule, ...] = Field((), description="Reports sent by schedule.")
    allow_addresses: tuple[str, ...] = Field(
        (),
        description="Private networks that receivers may be in, e.g. [10.1.0.0/16, 127.0.0.1/32]. "
        "All loopback, private and link-local addresses are refused otherwise.",
    )
    follow_redirects: bool = Field(
        False, description="Whether a receiver's redirect may be followed, to allowed addresses."
    )
    outbox: OutboxSettings = Field(default_factory=OutboxSettings, description="Delivery.")
    incidents: IncidentSettings = Field(
        default_factory=IncidentSettings, description="The life of incidents."
    )

    @field_validator("allow_addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [receiver.name for receiver in self.receivers]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two receivers have one name: {', '.join(sorted(twice))}")
        wanted = self.route.receivers() | {s.receiver for s in (*self.digests, *self.reports)}
        scheduled = {s.receiver for s in (*self.digests, *self.reports)}
        deaf = {one.name for one in self.receivers if not one.takes_lists} & scheduled
        if deaf:
            raise ValueError(f"takes no digests or reports: {', '.join(sorted(deaf))}")
        missing = wanted - set(names)
        if missing:
            raise ValueError(f"no such receiver: {', '.join(sorted(missing))}")
        return self
