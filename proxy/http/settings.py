"""The `server` and `upstreams` sections of the configuration.

Owns: their fields, defaults and bounds. Must never: open a socket or read the
environment.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

Wire = Literal[
    "openai", "anthropic", "gemini", "vertex", "mistral", "bedrock", "azure", "cohere", "ollama"
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class TLSSettings(BaseModel):
    """TLS on a port of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate_file: str = Field(description="PEM file with the certificate chain.")
    key_file: str = Field(description="PEM file with the private key.")


class ServerSettings(BaseModel):
    """How the data port listens, and what it bears."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address that the data port listens on.")
    port: int = Field(8787, ge=0, le=65535, description="Data port: only proxied traffic.")
    admin_port: int = Field(
        8788, ge=0, le=65535, description="Admin port: metrics, health, API, dashboard."
    )
    admin_host: str | None = Field(
        None, description="Address of the admin port; unset means the data port's."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that share the data port.")
    tls: TLSSettings | None = Field(None, description="Serve TLS on the data port.")
    admin_tls: TLSSettings | None = Field(None, description="Serve TLS on the admin port.")
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Networks whose X-Forwarded-For is believed, in CIDR form.",
    )
    header_timeout_seconds: float = Field(
        15.0, gt=0, description="A request's head must be whole within this time."
    )
    body_timeout_seconds: float = Field(
        60.0, gt=0, description="The longest pause between two pieces of a request's body."
    )
    idle_timeout_seconds: float = Field(
        120.0, gt=0, description="An idle connection of a client is closed after this time."
    )
    write_timeout_seconds: float = Field(
        120.0, gt=0, description="A client that takes no byte for this long is dropped."
    )
    drain_timeout_seconds: float = Field(
        30.0, ge=0, description="After SIGTERM, how long running calls may finish."
    )
    max_header_bytes: int = Field(
        65_536, ge=1024, description="Largest head of a request, all fields together."
    )
    max_headers: int = Field(128, ge=8, description="Most header fields of a request.")
    max_body_bytes: int = Field(
        1_073_741_824, ge=1024, description="Largest body of a request; above it: 413."
    )
    inspect_body_bytes: int = Field(
        16_777_216,
        ge=65_536,
        description="JSON bodies up to this size are read for model, limits and loops; "
        "larger ones pass by their first part alone.",
    )
    max_websocket_message_bytes: int = Field(
        67_108_864, ge=1024, description="Largest message of a WebSocket; above it: close 1009."
    )
    max_connections: int = Field(20_000, ge=1, description="Most connections of clients at once.")
    max_tracked_names: int = Field(
        10_000,
        ge=10,
        description="Most distinct names of one dimension (agent, user, tag, and sessions of one "
        "hour) that a worker tells apart; the rest count as `other`.",
    )
    response_headers: bool = Field(
        False,
        description="Add x-tokenweir-request-id to every answer, and x-tokenweir-cost-usd to JSON "
        "answers of up to 64 KB, which are kept back until they are whole.",
    )


class AWSSettings(BaseModel):
    """The proxy's own AWS credentials, for an upstream at AWS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str | None = Field(
        None,
        description="Profile of AWS's shared configuration files; unset: AWS's usual places "
        "(environment, default profile, the machine's role).",
    )
    region: str | None = Field(
        None, description="Region to sign for; unset: the one in the upstream's host name."
    )
    service: str = Field("bedrock", description="Service to sign for.")
    clients: Literal["virtual_keys", "all"] = Field(
        "virtual_keys",
        description="Whose calls are signed: those that come with a key of ours as their AWS "
        "access key id, or `all` that come signed by whatever key. The signatures of clients "
        "cannot be checked here, so `all` trusts everyone who reaches the port.",
    )


class UpstreamSettings(BaseModel):
    """One provider, or anything that speaks like one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        description="Origin with an optional path. `{…}` stands for the path segment after the "
        "upstream's name (an Azure resource, an AWS or Google region)."
    )
    wire: Wire = Field("openai", description="The wire format that it speaks.")
    provider: str | None = Field(
        None, description="Vendor for prices and metrics; unset: known from the host."
    )
    api_key: SecretStr | None = Field(
        None, description="The provider's key, for calls that come with a key of ours."
    )
    aws: AWSSettings | None = Field(
        None, description="Sign calls with the proxy's AWS credentials (extra `bedrock`)."
    )
    max_connections: int = Field(512, ge=1, description="Most connections to one origin.")
    queue_limit: int = Field(
        1024, ge=0, description="Most calls that wait for a connection; above it: 503."
    )
    queue_timeout_seconds: float = Field(
        5.0, gt=0, description="The longest wait for a connection; after it: 503."
    )
    connect_timeout_seconds: float = Field(10.0, gt=0, description="After it: 504.")
    response_timeout_seconds: float = Field(
        600.0, gt=0, description="The longest wait for the head of an answer; after it: 504."
    )
    idle_timeout_seconds: float = Field(
        300.0, gt=0, description="The longest pause inside an answer; after it the answer breaks."
    )
    keepalive_seconds: float = Field(
        15.0, ge=0, description="How long an unused connection is kept for the next call."
    )
    verify_tls: bool = Field(True, description="Check the upstream's certificate.")
    ca_file: str | None = Field(None, description="PEM file with further trusted authorities.")

    @field_validator("base_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://host[:port][/path] or https://…")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("may hold no user, password, query or fragment")
        if any(c.isspace() or ord(c) < 33 for c in value):
            raise ValueError("may hold no white space or control characters")
        return value.rstrip("/")


def _default(base_url: str, wire: Wire = "openai", provider: str | None = None) -> UpstreamSettings:
    return UpstreamSettings.model_validate(
        {"base_url": base_url, "wire": wire, "provider": provider}
    )


#: Served with no configuration at all. A user's entry of the same name replaces one.
DEFAULT_UPSTREAMS: dict[str, UpstreamSettings] = {
    "openai": _default("https://api.openai.com/v1"),
    "anthropic": _default("https://api.anthropic.com/v1", "anthropic"),
    "gemini": _default("https://generativelanguage.googleapis.com", "gemini"),
    "vertex": _default("https://{region}-aiplatform.googleapis.com", "vertex"),
    "mistral": _default("https://api.mistral.ai/v1", "mistral"),
    "azure": _default("https://{resource}.openai.azure.com", "azure"),
    "bedrock": _default("https://bedrock-runtime.{region}.amazonaws.com", "bedrock"),
    "cohere": _default("https://api.cohere.com", "cohere"),
    "groq": _default("https://api.groq.com/openai/v1"),
    "xai": _default("https://api.x.ai/v1"),
    "deepseek": _default("https://api.deepseek.com/v1"),
    "openrouter": _default("https://openrouter.ai/api/v1"),
    "together": _default("https://api.together.xyz/v1"),
    "perplexity": _default("https://api.perplexity.ai"),
    "cerebras": _default("https://api.cerebras.ai/v1"),
    "fireworks": _default("https://api.fireworks.ai/inference/v1"),
    "huggingface": _default("https://router.huggingface.co/v1"),
    "ollama": _default("http://127.0.0.1:11434", "ollama"),
}


def check_name(name: str) -> str:
    """An upstream's name is a path segment: lower case, digits, ``-`` and ``_``."""
    if not _NAME.fullmatch(name) or re.fullmatch(r"v\d.*", name):
        raise ValueError(
            f"upstream name {name!r} must be lower-case letters, digits, '-' or '_', and may not "
            "look like an API version (v1)"
        )
    return name
