"""Anything that Apprise knows (extra ``apprise``): a hundred services by one URL each.

Owns: the hand-over to the library. Must never: import it before it is needed,
or let it speak to an address that the guard refuses.

Apprise makes its own connections in a thread of its own, so the guard can only
look at the host before: a name that changes its address in that moment gets
past. Receivers of our own don't have that gap.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr

from proxy.alerts.message import Message, plain_text, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import DELIVERED, Outcome, Reason
from proxy.alerts.receivers.base import ReceiverSettings
from proxy.alerts.text import clean


class AppriseSettings(ReceiverSettings):
    """Any service by an Apprise URL."""

    type: Literal["apprise"] = Field("apprise", description="This receiver's type.")
    url: SecretStr = Field(description="The service's Apprise URL.")


class AppriseAny:
    """Notifies by the library."""

    per_incident: ClassVar[bool] = False

    def __init__(self, settings: AppriseSettings) -> None:
        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One try; the library tells success and failure, never why."""
        try:
            import apprise
        except ImportError:
            return Outcome(
                Reason.UNSUPPORTED, "apprise needs the extra: install tokenweir[apprise]"
            )
        # What it logs is not ours to clean.
        logging.getLogger("apprise").disabled = True
        service: Any = apprise.Apprise.instantiate(
            self._settings.url.get_secret_value(), suppress_exceptions=True
        )
        if service is None:
            return Outcome(Reason.CLIENT_ERROR, "the URL is of no known service")
        host = getattr(service, "host", None)
        if isinstance(host, str) and host:
            port = getattr(service, "port", None) or (443 if service.secure else 80)
            (await net.connect(host, int(port))).close()
        service.request_rate_per_sec = 0
        service.socket_connect_timeout = service.socket_read_timeout = net.timeout_seconds
        done = await asyncio.to_thread(
            service.notify, body=plain_text(message), title=clean(title_line(message), 200)
        )
        return DELIVERED if done else Outcome(Reason.CONNECTION, "apprise could not deliver")
