"""What every receiver is.

Owns: the settings and the protocol that all receivers share. Must never:
know any one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from proxy.alerts.message import Message
from proxy.alerts.net import Answer, Net
from proxy.alerts.outcome import Outcome

#: Where a URL is cut: a secret is one of its parts.
_URL_PARTS = re.compile(r"[/?&=:@#]+")
#: Shorter parts are words of every day.
_SHORT = 8


class ReceiverSettings(BaseModel):
    """What all receivers have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, description="How routes name it.")
    send_resolved: bool = Field(True, description="Whether it is told when an incident is over.")

    def secrets(self) -> Iterator[str]:
        """What must never be said: secret values, and the parts of secret URLs."""
        for value in dict(self).values():
            many = value.values() if isinstance(value, dict) else (value,)
            for one in many:
                if not isinstance(one, SecretStr):
                    continue
                held = one.get_secret_value()
                yield from (part for part in (held, *_URL_PARTS.split(held)) if len(part) >= _SHORT)

    @property
    def pages(self) -> bool:
        """Whether it wakes people: then it hears of an incident once."""
        return False

    @property
    def takes_lists(self) -> bool:
        """Whether digests and reports can be sent to it."""
        return True


class Receiver(Protocol):
    """Delivers messages to one place."""

    #: Whether each incident of a group is a message of its own.
    per_incident: ClassVar[bool]

    def __init__(self, settings: Any) -> None: ...

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One try. May raise ``NetError``; what else it raises counts as our own fault."""


def _http_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    return value


#: A URL that may hold a secret in its path, so that it is never shown.
SecretUrl = Annotated[SecretStr, AfterValidator(_http_url)]


async def post_json(
    net: Net, url: str, payload: Any, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send JSON; raises ``NetError`` where there is no answer."""
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return await net.send(url, body, {"Content-Type": "application/json", **(headers or {})})
