"""Prometheus Alertmanager: API v2.

Owns: the form of ``POST /api/v2/alerts`` (prometheus.io, "Alertmanager: management
API"; api/v2/openapi.yaml). Must never: let label names clash with Alertmanager's
rules, or let an alert that stands time out between our repeats.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr

from proxy.alerts.message import Card, Message
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome
from proxy.alerts.receivers.base import ReceiverSettings, SecretUrl, post_json
from proxy.alerts.text import iso

#: A standing alert ends here unless it is told of again or resolved before.
_STANDS_SECONDS = 86_400.0


class AlertmanagerSettings(ReceiverSettings):
    """An Alertmanager."""

    type: Literal["alertmanager"] = Field("alertmanager", description="This receiver's type.")
    url: SecretUrl = Field(description="Its base URL, such as http://alertmanager:9093.")
    bearer_token: SecretStr | None = Field(None, description="Sent as Authorization: Bearer.")

    @property
    def takes_lists(self) -> bool:
        """Only single incidents mean anything to it."""
        return False


class Alertmanager:
    """Posts alerts with their start and end."""

    per_incident: ClassVar[bool] = False

    def __init__(self, settings: AlertmanagerSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """All incidents of the message in one post."""
        base = self._settings.url.get_secret_value().rstrip("/")
        token = self._settings.bearer_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        alerts = [self.alert(card, net.now()) for card in message.cards]
        answer = await post_json(net, f"{base}/api/v2/alerts", alerts, headers)
        return answer.outcome()

    def alert(self, card: Card, now: float) -> dict[str, Any]:
        """One alert. Labels make its identity, so the tier is an annotation."""
        labels = {
            "alertname": f"Tokenweir_{card.family}",
            "incident": card.incident,
            "family": card.family,
            "dimension": card.dimension,
            "scope": card.scope,
            "project": card.project,
        }
        ends = now + _STANDS_SECONDS if card.firing else card.closed_at or now
        alert: dict[str, Any] = {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {
                "summary": card.title,
                "description": card.story,
                "severity": card.tier,
                "signal": card.signal,
                "next": card.next_step,
            },
            "startsAt": iso(card.opened_at),
            "endsAt": iso(ends),
        }
        if card.link:
            alert["generatorURL"] = card.link
        return alert
