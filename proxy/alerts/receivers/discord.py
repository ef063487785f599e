"""Discord: embeds by a channel's webhook.

Owns: Discord's payload and limits (discord.com/developers, "Execute webhook",
"Embed limits"). Must never: mention anyone: ``allowed_mentions`` is empty.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from pydantic import Field

from proxy.alerts.message import Card, Message, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome, outcome_of_status
from proxy.alerts.receivers.base import ReceiverSettings, SecretUrl, post_json
from proxy.alerts.text import clean, iso, markdown

_MOST_EMBEDS = 4
_TITLE, _DESCRIPTION, _FIELD, _MOST_FIELDS = 256, 1_200, 300, 10
_COLOR = {"emergency": 0xB91C1C, "critical": 0xDC2626, "warning": 0xD97706, "info": 0x2563EB}
_GREEN = 0x16A34A


class DiscordSettings(ReceiverSettings):
    """A Discord channel."""

    type: Literal["discord"] = Field("discord", description="This receiver's type.")
    webhook_url: SecretUrl = Field(description="The channel's webhook URL.")


class Discord:
    """Posts embeds."""

    per_incident: ClassVar[bool] = False

    def __init__(self, settings: DiscordSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One post; on 429 Discord says in the body how long to wait."""
        url = self._settings.webhook_url.get_secret_value()
        answer = await post_json(net, url, self.payload(message))
        if answer.status != 429:
            return answer.outcome()
        wait = answer.retry_after_seconds
        try:
            wait = float(json.loads(answer.body)["retry_after"])
        except (ValueError, KeyError, TypeError):
            pass
        return outcome_of_status(429, answer.said, wait)

    def payload(self, message: Message) -> dict[str, Any]:
        """At most four embeds, so that the sum stays under 6,000 characters."""
        lines = clean(" · ".join(message.lines), 1_500)
        embeds = [_embed(card) for card in message.cards[:_MOST_EMBEDS]]
        return {
            "username": "Tokenweir",
            "content": markdown(clean(title_line(message), 150)) + f"\n{markdown(lines)}"[:1_700],
            "embeds": embeds,
            "allowed_mentions": {"parse": []},
        }


def _embed(card: Card) -> dict[str, Any]:
    embed: dict[str, Any] = {
        "title": markdown(card.title)[:_TITLE],
        "description": markdown(card.story)[:_DESCRIPTION],
        "color": _COLOR[card.tier] if card.firing else _GREEN,
        "timestamp": iso(card.opened_at),
        "fields": [
            {"name": name, "value": markdown(value)[:_FIELD] or "–", "inline": len(value) < 40}
            for name, value in card.facts[:_MOST_FIELDS]
        ],
    }
    if card.link:
        embed["url"] = card.link
    return embed
