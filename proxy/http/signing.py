"""Calls to AWS, signed with the proxy's own credentials.

Owns: which credentials sign for which upstream, fetched ahead and kept fresh off the
request path. Must never: write them anywhere, or wait for AWS while a call waits.

A client's signature covers the host that the client called, so it is worth nothing
behind a proxy; and it can't be checked without the client's secret.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from proxy.http.errors import RefusedError
from proxy.http.routing import Route
from proxy.http.settings import AWSSettings, UpstreamSettings
from proxy.providers.base import Refusal
from proxy.providers.sigv4 import SIGNATURE_FIELDS, Credentials, signature

Lines = list[tuple[str, bytes]]

_log = structlog.get_logger("tokenweir.aws")


class Signer:
    """Signs for every upstream that has an ``aws`` section."""

    def __init__(self, upstreams: Callable[[], Iterable[UpstreamSettings]]) -> None:
        self._upstreams = upstreams
        self._sources: dict[str | None, Any] = {}
        self._keys: dict[str | None, Credentials | None] = {}

    async def refresh(self) -> None:
        """Fetch what the upstreams need; credentials that expire are renewed ahead of time."""
        profiles = {u.aws.profile for u in self._upstreams() if u.aws is not None}
        for profile in profiles:
            try:
                self._keys[profile] = await asyncio.to_thread(self._fetch, profile)
            except Exception as error:
                # botocore's errors name files and profiles, never a secret.
                _log.error("aws_credentials", profile=profile, error=str(error))
                self._keys.setdefault(profile, None)
            else:
                if self._keys[profile] is None:
                    _log.error("aws_credentials", profile=profile, error="none were found")

    def _fetch(self, profile: str | None) -> Credentials | None:
        source = self._sources.get(profile)
        if source is None:
            from botocore.session import Session

            source = Session(profile=profile).get_credentials()
            if source is None:
                return None
            self._sources[profile] = source
        found: Credentials = source.get_frozen_credentials()
        return found

    def sign(self, fields: Lines, method: str, route: Route, target: str, body: bytes) -> Lines:
        """The fields with a new signature. Raises :class:`RefusedError`."""
        settings = route.destination.settings.aws
        if settings is None:
            return fields
        origin = route.destination.origin
        keys = self._keys.get(settings.profile)
        if keys is None:
            raise RefusedError(_unable(route.destination.name, settings))
        kept = [line for line in fields if line[0] not in SIGNATURE_FIELDS]
        made = signature(
            method,
            f"{'https' if origin.tls else 'http'}://{origin.authority}{target}",
            {name: line.partition(b": ")[2].decode("latin-1") for name, line in kept},
            body,
            keys,
            settings.region or region_of(origin.host),
            settings.service,
        )
        return kept + [(name, f"{name}: {value}".encode("latin-1")) for name, value in made.items()]


def _unable(upstream: str, settings: AWSSettings) -> Refusal:
    if importlib.util.find_spec("botocore") is None:
        message = "signing for AWS needs the extra: pip install 'tokenweir[bedrock]'"
    else:
        where = f"profile {settings.profile!r}" if settings.profile else "AWS's usual places"
        message = f"upstreams.{upstream}.aws: no credentials in {where}"
    return Refusal("unavailable", message)


def region_of(host: str) -> str:
    """The region in an AWS host name; ``us-east-1`` where there is none.

    >>> region_of("bedrock-runtime.eu-central-1.amazonaws.com")
    'eu-central-1'
    """
    labels = host.split(".")
    found = (label for label in labels[1:-1] if label.count("-") >= 2 and label[-1:].isdigit())
    return next(found, "us-east-1")
