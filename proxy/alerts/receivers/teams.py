"""Microsoft Teams: an Adaptive Card by a workflow's webhook.

Owns: the card (learn.microsoft.com, "Create incoming webhooks with Workflows";
adaptivecards.io, schema 1.4). Must never: put a caller's text where Teams reads
Markdown: text runs are plain.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from proxy.alerts.message import Card, Message, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome
from proxy.alerts.receivers.base import ReceiverSettings, SecretUrl, post_json

_MOST_CARDS = 8
_COLOR = {"emergency": "attention", "critical": "attention", "warning": "warning", "info": "accent"}


class TeamsSettings(ReceiverSettings):
    """A Teams channel or chat."""

    type: Literal["teams"] = Field("teams", description="This receiver's type.")
    webhook_url: SecretUrl = Field(description="The workflow's webhook URL.")


class Teams:
    """Posts an Adaptive Card."""

    per_incident: ClassVar[bool] = False

    def __init__(self, settings: TeamsSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One post; Teams answers 202."""
        url = self._settings.webhook_url.get_secret_value()
        return (await post_json(net, url, self.payload(message))).outcome()

    def payload(self, message: Message) -> dict[str, Any]:
        """The card within its envelope."""
        tier = message.cards[0].tier if message.cards else "info"
        color = "good" if message.kind == "resolved" else _COLOR[tier]
        body: list[dict[str, Any]] = [
            _text(title_line(message), weight="bolder", size="large", color=color)
        ]
        body += [_text(line) for line in message.lines[:40]]
        for card in message.cards[:_MOST_CARDS]:
            body += _card(card)
        actions = [
            {"type": "Action.OpenUrl", "title": "Open", "url": card.link}
            for card in message.cards[:1]
            if card.link
        ]
        content = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
            "actions": actions,
        }
        kind = "application/vnd.microsoft.card.adaptive"
        return {
            "type": "message",
            "attachments": [{"contentType": kind, "contentUrl": None, "content": content}],
        }


def _text(words: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": words, **style}]}


def _card(card: Card) -> list[dict[str, Any]]:
    rows = [_text(card.story)]
    for name, value in card.facts:
        runs = [
            {"type": "TextRun", "text": f"{name}: ", "weight": "bolder"},
            {"type": "TextRun", "text": value},
        ]
        rows.append({"type": "RichTextBlock", "inlines": runs})
    if card.firing and card.next_step:
        rows.append(_text(f"Next: {card.next_step}"))
    return rows
