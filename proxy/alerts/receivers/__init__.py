"""The receivers, one file each; a new one is a file and a line here.

Owns: the registry. Must never: hold anything of a single receiver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from proxy.alerts.receivers.alertmanager import Alertmanager, AlertmanagerSettings
from proxy.alerts.receivers.apprise_any import AppriseAny, AppriseSettings
from proxy.alerts.receivers.base import Receiver, ReceiverSettings
from proxy.alerts.receivers.discord import Discord, DiscordSettings
from proxy.alerts.receivers.mail import Email, EmailSettings
from proxy.alerts.receivers.pagerduty import PagerDuty, PagerDutySettings
from proxy.alerts.receivers.slack import Slack, SlackSettings
from proxy.alerts.receivers.teams import Teams, TeamsSettings
from proxy.alerts.receivers.webhook import Webhook, WebhookSettings

#: The word of the YAML ``type`` -> its settings and its class.
RECEIVERS: dict[str, tuple[type[ReceiverSettings], type[Receiver]]] = {
    "alertmanager": (AlertmanagerSettings, Alertmanager),
    "apprise": (AppriseSettings, AppriseAny),
    "discord": (DiscordSettings, Discord),
    "email": (EmailSettings, Email),
    "pagerduty": (PagerDutySettings, PagerDuty),
    "slack": (SlackSettings, Slack),
    "teams": (TeamsSettings, Teams),
    "webhook": (WebhookSettings, Webhook),
}

if TYPE_CHECKING:
    AnyReceiverSettings = ReceiverSettings
else:
    #: Any receiver's settings, told apart by their ``type``.
    AnyReceiverSettings = Annotated[
        Union[tuple(settings for settings, _ in RECEIVERS.values())],  # noqa: UP007
        Field(discriminator="type"),
    ]


def build_receiver(settings: ReceiverSettings) -> Receiver:
    """The receiver that settings describe."""
    for model, made in RECEIVERS.values():
        if type(settings) is model:
            return made(settings)
    raise TypeError(f"no receiver for {type(settings).__name__}")


__all__ = ["RECEIVERS", "AnyReceiverSettings", "Receiver", "ReceiverSettings", "build_receiver"]
