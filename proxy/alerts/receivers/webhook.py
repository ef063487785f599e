"""A webhook of one's own: JSON, signed as Standard Webhooks says.

Owns: the payload's keys, which are a promise to users, and the signature
(standardwebhooks.com, "Standard Webhooks specification", symmetric ``v1``).
Must never: change the message's id between tries: receivers drop repeats by it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr

from proxy.alerts.message import Card, Message, detected_at, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import Outcome
from proxy.alerts.receivers.base import ReceiverSettings, SecretUrl
from proxy.alerts.text import iso

_PREFIX = "whsec_"
_LEAST_SECRET, _MOST_SECRET = 24, 64


def _key(secret: SecretStr) -> bytes:
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("the secret must be base64, with or without whsec_ before it") from error
    if not _LEAST_SECRET <= len(key) <= _MOST_SECRET:
        raise ValueError(f"the secret must hold {_LEAST_SECRET} to {_MOST_SECRET} bytes")
    return key


def _checked(secret: SecretStr) -> SecretStr:
    _key(secret)
    return secret


class WebhookSettings(ReceiverSettings):
    """An HTTP endpoint that takes signed JSON."""

    type: Literal["webhook"] = Field("webhook", description="This receiver's type.")
    url: SecretUrl = Field(description="Where messages are posted.")
    secret: Annotated[SecretStr, AfterValidator(_checked)] | None = Field(
        None, description="Signing secret, whsec_ and base64 of 24 to 64 bytes; unsigned without."
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="Further headers, such as Authorization."
    )


class Webhook:
    """Posts one signed payload per incident."""

    per_incident: ClassVar[bool] = True

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One signed post; the time of the signature is that of this try."""
        body = json.dumps(self.payload(message), ensure_ascii=False).encode()
        stamp = str(int(net.now()))
        headers = {name: v.get_secret_value() for name, v in self._settings.headers.items()}
        headers |= {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": stamp,
        }
        if self._settings.secret is not None:
            headers["webhook-signature"] = sign(
                _key(self._settings.secret), message.id, stamp, body
            )
        answer = await net.send(self._settings.url.get_secret_value(), body, headers)
        return answer.outcome()

    def payload(self, message: Message) -> dict[str, Any]:
        """What is posted; ``type`` is ``incident.firing``, ``incident.resolved`` and so on."""
        if message.kind in ("digest", "report") or not message.cards:
            attached = message.attachment
            return {
                "type": message.kind,
                "timestamp": iso(message.created_at),
                "title": message.title,
                "lines": list(message.lines),
                "incidents": [_incident(card) for card in message.cards],
                "attachment": None
                if attached is None
                else {
                    "name": attached.name,
                    "mediaType": attached.media_type,
                    "base64": attached.base64,
                },
            }
        return {
            "type": f"incident.{message.kind}",
            "timestamp": iso(message.created_at),
            "title": title_line(message),
            **({"policy": message.title} if message.kind == "action" else {}),
            **_incident(message.cards[0]),
        }


def _incident(card: Card) -> dict[str, Any]:
    return {
        "incidentId": card.incident,
        "fingerprint": card.fingerprint,
        "status": card.status,
        "projectId": card.project or None,
        "signal": card.signal,
        "scope": {"dimension": card.dimension, "value": card.scope},
        "agentId": card.agent or None,
        "agentName": card.agent or None,
        "severity": card.tier,
        "observedValue": card.observed,
        "baselineValue": card.baseline,
        "details": {
            "windowMinutes": card.window_minutes,
            "mean": card.baseline,
            "stddev": card.stddev,
            "story": card.story,
            "nextStep": card.next_step,
            "facts": dict(card.facts),
        },
        "detectedAt": detected_at(card),
        "since": iso(card.since),
        "resolvedAt": iso(card.closed_at) if card.closed_at is not None else None,
        "link": card.link or None,
    }


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The ``webhook-signature`` header: HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
