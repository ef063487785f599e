"""The YAML section ``store``.

Owns: where the store is and how long anything may wait for it. Must never:
connect to anything.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMES = (
    "embedded",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)

CLUSTER_SHARDS = 8


class StoreSettings(BaseModel):
    """Where counts, blocks, leases and incidents are shared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        "embedded://",
        description="embedded:// starts a bundled Valkey beside the data directory; otherwise "
        "redis://host:port/0, rediss:// (TLS), unix:///path, "
        "redis+sentinel://host:port,host:port/master-name, redis+cluster://host:port,host:port.",
    )
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        "tw", description="First part of every key, so that several installations can share."
    )
    shards: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Into how many hash slots series are spread; 1 for a single store and 8 for "
        "a cluster by default. Changing it starts the counters afresh.",
    )
    timeout_seconds: float = Field(
        0.05,
        gt=0,
        le=10,
        description="How long one command may take before the store counts as away.",
    )
    connect_timeout_seconds: float = Field(
        0.2, gt=0, le=10, description="How long a new connection may take."
    )
    query_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="How long a page's question (usage, history) may take."
    )
    max_connections: int = Field(
        16, ge=2, le=1024, description="Connections of one worker; callers queue for them."
    )
    tick_seconds: float = Field(
        0.1, ge=0.01, le=1.0, description="How often counts are sent; never more than 10 a second."
    )
    reconcile_seconds: float = Field(
        1.0,
        ge=0.1,
        le=10,
        description="How often blocks and keys are compared with the store, which heals a lost "
        "announcement, and how often this replica says that it lives.",
    )
    breaker_failures: int = Field(
        3, ge=1, description="After so many failures in a row the store counts as away."
    )
    breaker_seconds: float = Field(
        0.5, gt=0, description="How long to leave it alone before it is tried again."
    )
    max_series_per_dimension: int = Field(
        200_000,
        ge=100,
        description="Distinct values kept per dimension and shard; further ones count as 'other'.",
    )
    embedded_max_memory_bytes: int = Field(
        0, ge=0, description="Memory of the embedded store; 0 is unbounded."
    )
    embedded_binary: str | None = Field(
        None, description="A valkey-server or redis-server to start instead of the bundled one."
    )
    ca_file: str | None = Field(None, description="CA bundle for rediss://.")
    cert_file: str | None = Field(None, description="Client certificate for rediss://.")
    key_file: str | None = Field(None, description="Key of the client certificate.")
    verify: bool = Field(True, description="Check the certificate and host name of rediss://.")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ValueError(f"unknown store scheme {scheme!r}; one of: {', '.join(SCHEMES)}")
        if scheme.endswith("+sentinel") and not urlsplit(url).path.strip("/"):
            raise ValueError("a sentinel URL ends with /<master name>")
        return url

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over several masters."""
        return urlsplit(self.url).scheme.endswith("+cluster")

    @property
    def shard_count(self) -> int:
        """How many hash tags series are spread over."""
        if self.shards is not None:
            return self.shards
        return CLUSTER_SHARDS if self.is_cluster else 1
