"""Routes, stages and the plan, without a store: who is told what, when, how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detection.types import Series, Signal, Tier
from proxy.alerts.matchers import parse_matcher
from proxy.alerts.message import Message, card_of
from proxy.alerts.plan import Log, ReceiverTraits, World, make_plan
from proxy.alerts.routing import build_routes, routes_of
from proxy.alerts.schedule import digest, last_due, span_of
from proxy.alerts.settings import AlertsSettings, DigestSettings, QuietHours
from proxy.alerts.silences import Silence
from proxy.alerts.stages import Muted, Told, is_quiet
from proxy.incidents_model import Incident, State
from tests.unit.alerts.rig import AGENT, NOW, incident

HOUR = 3_600.0


def hook(name: str = "hook") -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": "https://hooks.example.test/x"}


def teams(name: str = "team") -> dict[str, Any]:
    return {"name": name, "type": "teams", "webhook_url": "https://hooks.example.test/t"}


@dataclass
class Desk:
    """Plans again and again with what earlier plans decided, as the service does."""

    settings: AlertsSettings
    incidents: list[Incident] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    logs: dict[str, Log] = field(default_factory=dict)
    told: dict[tuple[str, str], Told] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    muted: dict[tuple[str, str], Muted] = field(default_factory=dict)

    def at(self, now: float, *incidents: Incident) -> list[Message]:
        """What goes out now."""
        if incidents:
            self.incidents = list(incidents)
        traits = {
            one.name: ReceiverTraits(one.name, one.type == "webhook", one.pages, one.send_resolved)  # type: ignore[attr-defined]
            for one in self.settings.receivers
        }
        world = World(
            settings=self.settings, root=build_routes(self.settings.route), receivers=traits,
            incidents=self.incidents, silences=self.silences, logs=self.logs, told=self.told,
            pages=self.pages, waiting=self.waiting,
        )  # fmt: skip
        plan = make_plan(world, now)
        self.muted = plan.muted
        sent: list[Message] = []
        for decision in plan.decisions:
            if decision.log.count:
                self.logs[decision.log.id] = decision.log
            self.told |= decision.told
            self.pages |= dict.fromkeys(decision.pages, decision.log.receiver)
            sent += decision.messages
        return sent


def desk(route: dict[str, Any] | None = None, **more: Any) -> Desk:
    """A desk with one webhook and no first wait."""
    raw = {"receivers": [hook()], **more}
    raw["route"] = {"receiver": "hook", "group_wait_seconds": 0, **(route or {})}
    return Desk(AlertsSettings.model_validate(raw))


def closed(one: Incident, at: float) -> Incident:
    return replace(one, state=State.RESOLVED, closed_at=at, tier=Tier.NONE)


def test_told_once_repeated_after_the_interval_and_resolved() -> None:
    here = desk({"repeat_interval_seconds": 4 * HOUR})
    one = incident()
    assert [m.kind for m in here.at(NOW, one)] == ["firing"]
    for minute in range(1, 239):
        assert here.at(NOW + minute * 60) == []
    assert [m.kind for m in here.at(NOW + 4 * HOUR)] == ["firing"]
    assert [m.kind for m in here.at(NOW + 5 * HOUR, closed(one, NOW + 5 * HOUR))] == ["resolved"]
    assert here.at(NOW + 9 * HOUR) == []


def test_acknowledged_is_told_once_and_never_repeated() -> None:
    here = desk()
    one = incident()
    here.at(NOW, one)
    known = replace(one, state=State.ACKNOWLEDGED, acknowledged_by="ana")
    assert [m.kind for m in here.at(NOW + 60, known)] == ["acknowledged"]
    assert here.at(NOW + 100 * HOUR) == []


def test_worse_is_told_at_once_and_milder_is_not() -> None:
    here = desk()
    one = incident(tier=Tier.WARNING)
    assert [m.page for m in here.at(NOW, one)] == [False]
    (raised,) = here.at(NOW + 5, replace(one, worst=Tier.CRITICAL, tier=Tier.CRITICAL))
    assert raised.page
    assert here.at(NOW + 10, replace(one, worst=Tier.CRITICAL, tier=Tier.WARNING)) == []
    (worst,) = here.at(NOW + 15, replace(one, worst=Tier.EMERGENCY))
    assert not worst.page


def test_the_cool_down_holds_the_same_scope_but_not_a_worse_one() -> None:
    here = desk()
    first = incident(tier=Tier.WARNING)
    here.at(NOW, first)
    here.at(NOW + 60, closed(first, NOW + 60))
    second = replace(first, id="inc_2")
    assert here.at(NOW + 600, second) == []
    assert here.muted["hook", "inc_2"] is Muted.COOLDOWN
    assert len(here.at(NOW + 700, replace(second, worst=Tier.CRITICAL))) == 1
    other = incident(Series("agent", "other"), tier=Tier.WARNING)
    assert len(here.at(NOW + 800, other)) >= 1
    third = replace(first, id="inc_3", worst=Tier.CRITICAL)
    assert len(here.at(NOW + 700 + HOUR, third)) >= 1


def test_a_group_waits_then_tells_all_in_one_message() -> None:
    here = desk(
        {"group_by": ["project"], "group_wait_seconds": 30, "receiver": "team"},
        receivers=[hook(), teams()],
    )
    many = [incident(Series("key", f"key_{n}"), id=f"inc_{n}") for n in range(3)]
    assert here.at(NOW, many[0]) == []
    assert here.at(NOW + 20, *many[:2]) == []
    (told,) = here.at(NOW + 30, *many[:2])
    assert [card.incident for card in told.cards] == ["inc_0", "inc_1"]
    mild = [replace(i, worst=Tier.WARNING) for i in many]
    assert here.at(NOW + 40, *mild) == []
    (later,) = here.at(NOW + 60, *mild)
    assert len(later.cards) == 3


def test_routes_are_tried_as_in_alertmanager() -> None:
    tree = {
        "receiver": "hook",
        "routes": [
            {"receiver": "team", "matchers": ['project="web"'], "min_tier": "critical"},
            {
                "receiver": "late",
                "matchers": ['signal=~"drift|agent_loop"'],
                "continue": True,
                "routes": [{"matchers": ["tier!=emergency"]}],
            },
            {"receiver": "team", "matchers": ['dimension="agent"']},
        ],
    }
    settings = AlertsSettings.model_validate(
        {"receivers": [hook(), teams(), hook("late")], "route": tree}
    )
    root = build_routes(settings.route)

    def names(one: Incident) -> list[str | None]:
        return [route.receiver for route in routes_of(root, one.labels(), one.worst)]

    assert names(incident(projects=("web",))) == ["team"]
    assert names(incident(projects=("api",))) == ["late", "team"]
    assert names(incident(Series("total", ""), signal=Signal.SPEND_SPIKE, projects=())) == ["hook"]
    assert names(incident(tier=Tier.INFO)) == []


def test_quiet_hours_let_the_worst_through_and_tell_the_rest_after() -> None:
    night = datetime(2027, 1, 15, 23, 30, tzinfo=UTC).timestamp()
    morning = datetime(2027, 1, 16, 7, 0, tzinfo=UTC).timestamp()
    hours = [{"start": "22:00", "end": "07:00"}]
    here = desk({"quiet_hours": hours, "repeat_interval_seconds": 24 * HOUR})
    warning = incident(tier=Tier.WARNING)
    emergency = incident(Series("agent", "other"), tier=Tier.EMERGENCY)
    told = here.at(night, warning, emergency)
    assert [m.cards[0].incident for m in told] == [emergency.id]
    assert here.at(morning - 1) == []
    assert [m.cards[0].incident for m in here.at(morning)] == [warning.id]


@given(st.floats(0, 4e9), st.integers(0, 23), st.integers(0, 23))
def test_quiet_hours_and_their_complement_share_no_moment(now: float, start: int, end: int) -> None:
    if start == end:
        return
    one = QuietHours(start=f"{start:02}:00", end=f"{end:02}:00")
    other = QuietHours(start=f"{end:02}:00", end=f"{start:02}:00")
    assert is_quiet(one, now) != is_quiet(other, now)


def test_maintenance_holds_and_a_told_incident_is_still_resolved() -> None:
    one = incident()
    window = Silence("sil_1", "maintenance", (), NOW + 100, NOW + 200)
    here = desk()
    here.at(NOW, one)
    here.silences = [window]
    other = incident(Series("agent", "other"))
    assert here.at(NOW + 150, one, other) == []
    assert here.muted["hook", other.id] is Muted.MAINTENANCE
    assert [m.kind for m in here.at(NOW + 160, closed(one, NOW + 160), other)] == ["resolved"]
    assert [m.cards[0].incident for m in here.at(NOW + 200)] == [other.id]


def test_configured_inhibition() -> None:
    here = desk(
        inhibit_explained=False,
        inhibit_rules=[
            {
                "source_matchers": ['tier="critical"'],
                "target_matchers": ['tier="warning"'],
                "equal": ["project"],
            }
        ],
    )
    loud, soft = incident(), incident(Series("key", "key_9"), tier=Tier.WARNING)
    assert [m.cards[0].incident for m in here.at(NOW, loud, soft)] == [loud.id]
    assert here.muted["hook", soft.id] is Muted.INHIBITED
    assert len(here.at(NOW + 1, loud, replace(soft, projects=("web",)))) == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 900), st.sampled_from(["same", "worse", "ack", "close", "new"])),
        max_size=30,
    )
)
def test_never_twice_within_the_interval_whatever_happens(
    steps: Sequence[tuple[int, str]],
) -> None:
    here = desk({"repeat_interval_seconds": HOUR})
    one = incident(tier=Tier.WARNING)
    now, seen = NOW, {}
    serial = 0
    for wait, what in steps:
        now += wait
        if what == "worse":
            one = replace(one, worst=Tier(min(one.worst + 1, Tier.EMERGENCY)))
        elif what == "ack" and one.active:
            one = replace(one, state=State.ACKNOWLEDGED)
        elif what == "close" and one.active:
            one = closed(one, now)
        elif what == "new" and not one.active:
            serial += 1
            one = replace(
                one, id=f"inc_{serial}", state=State.OPEN, closed_at=None, worst=Tier.WARNING
            )
        for message in here.at(now, one):
            card = message.cards[0]
            mark = (card.incident, message.kind, card.tier)
            assert now - seen.get(mark, -HOUR) >= HOUR
            seen[mark] = now


def test_digests_list_what_was_not_told() -> None:
    settings = DigestSettings(every="day", receiver="hook", at="08:00")
    due = last_due(settings, NOW)
    start, end = span_of(settings, due)
    assert (end - start, due - end) == (86_400.0, 8 * HOUR)
    quiet = incident(tier=Tier.INFO)
    made = digest(settings, [quiet, incident()], due, "https://w.test")
    assert made is not None
    assert [card.incident for card in made.cards] == [quiet.id]
    assert digest(settings, [incident()], due, "") is None


@pytest.mark.parametrize(
    "raw",
    [
        {"route": {"receiver": "nobody"}},
        {"receivers": [hook(), hook()]},
        {"route": {"matchers": ["tier"]}},
        {"allow_addresses": ["10.0.0.0/33"]},
        {"maintenance": [{"start": "2027-01-02T00:00:00Z", "end": "2027-01-01T00:00:00Z"}]},
        {"route": {"quiet_hours": [{"timezone": "Mars/Olympus"}]}},
    ],
)
def test_odd_settings_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AlertsSettings.model_validate(raw)


@given(st.text(max_size=80))
def test_matchers_never_do_worse_than_refuse(text: str) -> None:
    try:
        matcher = parse_matcher(text)
    except ValueError:
        return
    assert isinstance(matcher.holds({"tier": "critical"}), bool)


def test_the_scope_of_an_incident_is_its_label() -> None:
    assert incident(AGENT).labels()["agent"] == "support-triage"


@pytest.mark.parametrize(
    ("signal", "observed", "words"),
    [
        (Signal.SPEND_SPIKE, 12.5, "$12.50"),
        (Signal.COST_PER_REQUEST, 12_500_000, "$0.01"),
        (Signal.VOLUME_SURGE, 12.5, "12.5"),
    ],
)
def test_figures_are_told_in_the_signals_unit(signal: Signal, observed: float, words: str) -> None:
    card = card_of(incident(signal=signal, observed=observed), "https://weir.example.test")
    assert dict(card.facts)["Observed"] == words
