"""PagerDuty: Events API v2, one alert per incident by its dedup key.

Owns: PagerDuty's payload (developer.pagerduty.com, "Send an event", "PD-CEF").
Must never: trigger a second alert for an incident: all its events carry the
incident's id as dedup key.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr

from proxy.alerts.message import Message, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome, Reason
from proxy.alerts.receivers.base import ReceiverSettings, post_json
from proxy.alerts.text import clean, iso

_SUMMARY = 1_024
_SEVERITY = {"emergency": "critical", "critical": "error", "warning": "warning", "info": "info"}
_PRIORITY = {"emergency": "P1", "critical": "P2", "warning": "P3", "info": "P4"}
_ACTION = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}


class PagerDutySettings(ReceiverSettings):
    """A PagerDuty service's Events API v2 integration."""

    type: Literal["pagerduty"] = Field("pagerduty", description="This receiver's type.")
    routing_key: SecretStr = Field(description="The integration key.")
    url: str = Field("https://events.pagerduty.com/v2/enqueue", description="Where events go.")

    @property
    def pages(self) -> bool:
        """PagerDuty wakes people."""
        return True

    @property
    def takes_lists(self) -> bool:
        """Only single incidents mean anything to it."""
        return False


class PagerDuty:
    """Sends trigger, acknowledge and resolve."""

    per_incident: ClassVar[bool] = True

    def __init__(self, settings: PagerDutySettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One event; 202 means taken."""
        if message.kind not in _ACTION or not message.cards:
            return Outcome(Reason.UNSUPPORTED, f"pagerduty takes no {message.kind}")
        answer = await post_json(net, self._settings.url, self.payload(message))
        return answer.outcome()

    def payload(self, message: Message) -> dict[str, Any]:
        """The event of the message's incident."""
        card = message.cards[0]
        event: dict[str, Any] = {
            "routing_key": self._settings.routing_key.get_secret_value(),
            "event_action": _ACTION[message.kind],
            "dedup_key": card.incident,
        }
        if message.kind != "firing":
            return event
        event["client"] = "Tokenweir"
        if card.link:
            event["client_url"] = card.link
            event["links"] = [{"href": card.link, "text": "Open the incident"}]
        event["payload"] = {
            "summary": clean(f"{title_line(message)} — {card.story}", _SUMMARY),
            "source": clean(card.scope or "all traffic", 255),
            "severity": _SEVERITY[card.tier],
            "timestamp": iso(card.opened_at),
            "component": card.dimension,
            "group": card.project,
            "class": card.signal,
            "custom_details": {
                "priority": _PRIORITY[card.tier],
                "next": card.next_step,
                **dict(card.facts),
            },
        }
        return event
