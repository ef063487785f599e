"""Slack: blocks, one thread per incident, ``@channel`` once where it is critical.

Owns: Slack's payload (docs.slack.dev: "Block Kit", "chat.postMessage",
"Sending messages using incoming webhooks"). Must never: let a caller's text
mention anyone.

With a bot token later messages go into the incident's thread; an incoming
webhook's answer names no message, so there each stands alone.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, model_validator

from proxy.alerts import text
from proxy.alerts.message import Card, Message, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome, Reason
from proxy.alerts.receivers.base import ReceiverSettings, SecretUrl, post_json

_MOST_CARDS = 10
_HEADER, _SECTION, _FIELD, _MOST_FIELDS = 150, 3_000, 2_000, 10
#: Errors of chat.postMessage that pass by themselves.
_PASSING = frozenset(
    {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
_REFUSED = frozenset({"invalid_auth", "not_authed", "token_revoked", "account_inactive"})


class SlackSettings(ReceiverSettings):
    """A Slack channel."""

    type: Literal["slack"] = Field("slack", description="This receiver's type.")
    webhook_url: SecretUrl | None = Field(None, description="An incoming webhook's URL.")
    token: SecretStr | None = Field(None, description="A bot token, for updates in a thread.")
    channel: str | None = Field(None, description="Channel id or name; needed with a token.")
    api_url: str = Field("https://slack.com/api", description="Base of Slack's API.")
    mention_channel: bool = Field(
        True, description="Whether the first critical message of an incident says @channel."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook_url is None) == (self.token is None):
            raise ValueError("slack needs either webhook_url or token")
        if self.token is not None and not self.channel:
            raise ValueError("slack needs a channel beside the token")
        return self


class Slack:
    """Posts blocks."""

    per_incident: ClassVar[bool] = True

    def __init__(self, settings: SlackSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """Post, or answer in the thread where there is one."""
        payload = self.payload(message)
        if self._settings.webhook_url is not None:
            answer = await post_json(net, self._settings.webhook_url.get_secret_value(), payload)
            return answer.outcome()
        assert self._settings.token is not None  # noqa: S101 - checked by the settings
        payload["channel"] = self._settings.channel
        if message.receipt.get("ts"):
            payload["thread_ts"] = message.receipt["ts"]
        answer = await post_json(
            net,
            f"{self._settings.api_url.rstrip('/')}/chat.postMessage",
            payload,
            {"Authorization": f"Bearer {self._settings.token.get_secret_value()}"},
        )
        if answer.status != 200:
            return answer.outcome()
        try:
            told = json.loads(answer.body)
        except ValueError:
            return Outcome(Reason.BAD_ANSWER)
        if isinstance(told, dict) and told.get("ok") is True:
            return Outcome(receipt={"ts": message.receipt.get("ts") or str(told.get("ts", ""))})
        error = str(told.get("error", "") if isinstance(told, dict) else "")
        if error in _PASSING:
            limited = error == "ratelimited"
            reason = Reason.RATE_LIMITED if limited else Reason.SERVER_ERROR
        elif error in _REFUSED:
            reason = Reason.AUTHENTICATION
        else:
            reason = Reason.CLIENT_ERROR
        return Outcome(reason, net.hide(error), answer.retry_after_seconds)

    def payload(self, message: Message) -> dict[str, Any]:
        """The blocks, within Slack's limits."""
        title = title_line(message)
        blocks: list[dict[str, Any]] = [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": text.clean(title, _HEADER), "emoji": False},
            }
        ]
        mention = message.page and self._settings.mention_channel
        if mention:
            blocks.append(_section("<!channel>"))
        if message.lines:
            blocks.append(_section(text.slack("\n".join(message.lines))))
        for card in message.cards[:_MOST_CARDS]:
            blocks += _card(card)
        left = len(message.cards) - _MOST_CARDS
        if left > 0:
            blocks.append(_section(f"and {left} more"))
        return {
            "text": text.slack(title) + (" <!channel>" if mention else ""),
            "blocks": blocks,
            "unfurl_links": False,
        }


def _section(words: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": words[:_SECTION]}}


def _card(card: Card) -> list[dict[str, Any]]:
    blocks = [_section(text.slack(card.story))]
    fields = [
        {"type": "mrkdwn", "text": f"*{name}*\n{text.slack(value)}"[:_FIELD]}
        for name, value in card.facts[:_MOST_FIELDS]
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if card.firing and card.next_step:
        words = f"Next: {text.slack(card.next_step)}"
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": words}]})
    if card.link:
        button = {
            "type": "button",
            "text": {"type": "plain_text", "text": "Open"},
            "url": card.link,
            "action_id": f"open_{card.incident}",
        }
        blocks.append({"type": "actions", "elements": [button]})
    return blocks
