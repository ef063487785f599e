"""The `admin` section of the configuration: who may see and do what.

Owns: its fields, defaults and bounds. Must never: open a socket, read the
environment, or show a token.
"""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

RoleName = Literal["viewer", "operator", "admin"]


class AdminToken(BaseModel):
    """A bearer token of the admin API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        min_length=1, max_length=64, description="Who it belongs to, in the audit trail."
    )
    token: SecretStr = Field(
        min_length=16, description="The secret, at least 16 characters; best as ${VARIABLE}."
    )
    role: RoleName = Field(
        default="viewer", description="viewer reads, operator acts on traffic, admin changes keys."
    )
    projects: tuple[str, ...] = Field(
        default=(), description="Only these projects can be seen; empty means all."
    )


class TrustedHeader(BaseModel):
    """Sign-in by a reverse proxy in front of the admin port."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field(default="X-Forwarded-User", description="Header that names the user.")
    networks: tuple[str, ...] = Field(
        min_length=1, description="Only peers in these networks are believed, in CIDR form."
    )
    roles: dict[str, RoleName] = Field(default={}, description="Role of each user by name.")
    default_role: RoleName | None = Field(
        default=None, description="Role of users not listed; unset refuses them."
    )

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value


class OIDCSettings(BaseModel):
    """Sign-in with OpenID Connect: authorization code with PKCE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(description="The issuer's URL, https; its discovery document is read.")
    client_id: str = Field(description="Client id registered with the issuer.")
    client_secret: SecretStr | None = Field(
        default=None, description="Client secret; unset for a public client."
    )
    scopes: tuple[str, ...] = Field(
        default=("openid", "email", "profile"), description="Scopes asked for."
    )
    role_claim: str = Field(
        default="groups", description="Claim of the ID token that decides the role."
    )
    roles: dict[str, RoleName] = Field(
        default={}, description="Role by value of the role claim; the highest match counts."
    )
    default_role: RoleName | None = Field(
        default=None, description="Role of users without a match; unset refuses them."
    )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        parts = urlsplit(value)
        local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ValueError("must be an https URL (http only for this machine)")
        return value.rstrip("/")


class EmbedSettings(BaseModel):
    """The widget for a product's own billing page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    show_from_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The widget shows itself from this share of the budget on.",
    )
    link_hours: int = Field(
        default=24,
        ge=1,
        le=24 * 90,
        description="How long a signed link of the widget is good for.",
    )
    frame_ancestors: tuple[str, ...] = Field(
        default=(),
        description="Origins that may frame the widget, such as https://app.example.com.",
    )

    @field_validator("frame_ancestors")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            plain = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme not in ("http", "https") or plain != origin or set(origin) & set(" ;,"):
                raise ValueError(f"{origin!r} is not an origin like https://app.example.com")
        return value


class AdminSettings(BaseModel):
    """Access to the admin port. All is refused that is not granted here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[AdminToken, ...] = Field(
        default=(), description="Further bearer tokens, beside the one made at first start."
    )
    metrics_access: Literal["open", "token"] = Field(
        default="open", description="Whether /metrics needs a token too."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names by which browsers may reach this port, beside addresses, "
        "localhost and single-label names.",
    )
    public_url: str | None = Field(
        default=None,
        description="How people reach the dashboard, for links in alerts and refusals.",
    )
    session_hours: float = Field(
        default=12.0, gt=0, le=24 * 30, description="How long a dashboard session lasts."
    )
    sign_in_attempts_per_minute: int = Field(
        default=10, ge=1, description="Failed sign-ins allowed per client address and minute."
    )
    trusted_header: TrustedHeader | None = Field(
        default=None, description="Believe a reverse proxy's header; unset means never."
    )
    oidc: OIDCSettings | None = Field(default=None, description="Sign-in with OpenID Connect.")
    embed: EmbedSettings = Field(default_factory=EmbedSettings, description="The billing widget.")

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL like https://tokenweir.example.com")
        return value.rstrip("/")

    @field_validator("tokens")
    @classmethod
    def _names_differ(cls, value: tuple[AdminToken, ...]) -> tuple[AdminToken, ...]:
        names = [token.name for token in value]
        if len(set(names)) != len(names):
            raise ValueError("two tokens have the same name")
        return value
