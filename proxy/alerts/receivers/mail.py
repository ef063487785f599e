"""Email by SMTP: plain text and HTML, one thread per incident.

Owns: the message's headers and its two bodies. Must never: send a password
over a connection that isn't encrypted, or let a value add a header.
"""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from proxy.alerts.message import Card, Message, plain_text, title_line
from proxy.alerts.net import Net
from proxy.alerts.outcome import DELIVERED, Outcome, Reason
from proxy.alerts.receivers.base import ReceiverSettings
from proxy.alerts.text import clean

_SUBJECT = 180


class EmailSettings(ReceiverSettings):
    """People's inboxes."""

    type: Literal["email"] = Field("email", description="This receiver's type.")
    to: tuple[str, ...] = Field(min_length=1, description="Who gets it.")
    sender: str = Field(description="The From address.")
    host: str = Field(description="SMTP server.")
    port: int = Field(587, ge=1, le=65_535, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection is encrypted; none only inside a trusted net."
    )
    username: str | None = Field(None, description="Login.")
    password: SecretStr | None = Field(None, description="Password of the login.")

    @field_validator("to")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            _must_be_address(one)
        return value

    @field_validator("sender")
    @classmethod
    def _address(cls, value: str) -> str:
        _must_be_address(value)
        return value

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.password is not None and self.security == "none":
            raise ValueError("a password needs security: starttls or tls")
        return self


class Email:
    """Sends by SMTP."""

    per_incident: ClassVar[bool] = False

    def __init__(self, settings: EmailSettings) -> None:
        import aiosmtplib  # noqa: F401  at the start, and only where mail is sent

        self._settings = settings

    async def deliver(self, message: Message, net: Net) -> Outcome:
        """One mail to all addresses; 4xx answers are tried again (RFC 5321, 4.2.1)."""
        import aiosmtplib

        s = self._settings
        sock = await net.connect(s.host, s.port)
        context = ssl.create_default_context() if s.security != "none" else None
        client = aiosmtplib.SMTP(
            hostname=None,
            sock=sock,
            use_tls=s.security == "tls",
            start_tls=False,
            timeout=net.timeout_seconds,
            tls_context=context,
            local_hostname="tokenweir",
        )
        # A socket of our own leaves the client without the name that TLS must check.
        client.hostname = s.host
        try:
            async with client:
                if s.security == "starttls":
                    await client.starttls(server_hostname=s.host, tls_context=context)
                if s.username is not None and s.password is not None:
                    await client.login(s.username, s.password.get_secret_value())
                await client.send_message(self.compose(message))
        except aiosmtplib.SMTPAuthenticationError as error:
            return Outcome(Reason.AUTHENTICATION, f"smtp {error.code}")
        except aiosmtplib.SMTPRecipientsRefused as refused:
            passing = all(400 <= one.code < 500 for one in refused.recipients)
            return Outcome(
                Reason.SERVER_ERROR if passing else Reason.CLIENT_ERROR, "recipients refused"
            )
        except aiosmtplib.SMTPResponseException as error:
            passing = 400 <= error.code < 500
            return Outcome(
                Reason.SERVER_ERROR if passing else Reason.CLIENT_ERROR, f"smtp {error.code}"
            )
        except aiosmtplib.SMTPTimeoutError:
            return Outcome(Reason.TIMEOUT)
        except (aiosmtplib.SMTPException, OSError) as error:
            return Outcome(Reason.CONNECTION, type(error).__name__)
        finally:
            sock.close()
        return DELIVERED

    def compose(self, message: Message) -> EmailMessage:
        """The mail; replies of one incident thread by their References."""
        mail = EmailMessage()
        mail["Subject"] = clean(title_line(message), _SUBJECT)
        mail["From"] = self._settings.sender
        mail["To"] = ", ".join(self._settings.to)
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.created_at, UTC))
        mail["Message-ID"] = f"<{message.id}@tokenweir.invalid>"
        thread = f"<{message.lane}@tokenweir.invalid>"
        mail["In-Reply-To"] = thread
        mail["References"] = thread
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(plain_text(message))
        mail.add_alternative(html_body(message), subtype="html")
        attached = message.attachment
        if attached is not None:
            kind, _, sub = attached.media_type.partition("/")
            mail.add_attachment(
                base64.b64decode(attached.base64),
                maintype=kind,
                subtype=sub,
                filename=attached.name,
            )
        return mail


def _must_be_address(text: str) -> None:
    from email.headerregistry import Address  # a parser of half a megabyte

    Address(addr_spec=text)


def html_body(message: Message) -> str:
    """The HTML form: no image, no script, nothing from outside."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in message.lines)
    cards = "".join(_card(card) for card in message.cards)
    return (
        "<!doctype html><html><body style='font-family:sans-serif;max-width:44em'>"
        f"<h2>{escape(title_line(message))}</h2>{lines}{cards}</body></html>"
    )


def _card(card: Card) -> str:
    rows = "".join(
        f"<tr><th align='left' style='padding-right:1em'>{escape(name)}</th>"
        f"<td>{escape(value)}</td></tr>"
        for name, value in card.facts
    )
    step = f"<p><b>Next:</b> {escape(card.next_step)}</p>" if card.firing else ""
    link = f"<p><a href='{escape(card.link)}'>Open the incident</a></p>" if card.link else ""
    return f"<hr><p>{escape(card.story)}</p><table>{rows}</table>{step}{link}"
