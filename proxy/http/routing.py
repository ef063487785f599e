"""Where a call goes: from a request target to an upstream and a raw path.

Owns: the reading of the target and the choice of the upstream. Must never:
take anything of the destination from the client beyond the raw path and query,
decode a path, or join URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from proxy.http.settings import UpstreamSettings
from proxy.providers import provider_of

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?=/|$)")
_PARAMETER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_GEMINI = re.compile(
    r"/v\d[a-z0-9]*/(?:(?:models|tunedModels|cachedContents|dynamic)/|operations|corpora|interactions)"
)
_VERSION = re.compile(r"/v\d[a-z0-9]*(?=/|$)")
_AGENT = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class RoutingError(ValueError):
    """A target that goes nowhere. ``status`` is the answer it deserves."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Origin:
    """One host to connect to. Connections are pooled by it."""

    host: str
    port: int
    tls: bool
    upstream: str

    @property
    def authority(self) -> str:
        """The value of the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Destination:
    """A resolved upstream. ``prefix`` is the path part of its base URL."""

    name: str
    settings: UpstreamSettings
    origin: Origin
    prefix: str
    provider: str
    base_url: str


@dataclass(frozen=True, slots=True)
class Route:
    """What a target means. ``path`` is raw, ``query`` has no leading ``?``."""

    destination: Destination
    path: str
    query: str
    agent: str | None

    def target(self, path: str | None = None) -> str:
        """The request target to send upstream."""
        path = self.path if path is None else path
        prefix = self.destination.prefix
        version = _VERSION.match(path)
        if version and prefix.endswith(version.group()):
            path = path[version.end() :]
        full = (prefix + path) or "/"
        return f"{full}?{self.query}" if self.query else full


class Router:
    """Resolves request targets against the configured upstreams."""

    def __init__(self, upstreams: Mapping[str, UpstreamSettings]) -> None:
        self._upstreams = dict(upstreams)
        self._destinations: dict[tuple[str, str | None], Destination] = {}

    def route(self, target: str, headers: Mapping[str, str]) -> Route:
        """The route of one request. Raises :class:`RoutingError`."""
        absolute = _ABSOLUTE.match(target)
        if absolute:
            target = target[absolute.end() :] or "/"
        if not target.startswith("/"):
            raise RoutingError(400, "the request target must be a path")
        path, _, query = target.partition("?")
        if "#" in target or _DOT_SEGMENT.search(path):
            raise RoutingError(400, "a path may not hold '.', '..' or '#'")
        agent = None
        if path.startswith("/@"):
            segment, slash, rest = path[2:].partition("/")
            agent = unquote(segment, errors="strict") if segment.isascii() else segment
            if not _AGENT.fullmatch(agent):
                raise RoutingError(400, "the agent in the path must be 1 to 128 printable letters")
            path = slash + rest
        name, path, parameter = self._choose(path, headers)
        return Route(self._destination(name, parameter), path, query, agent)

    def _choose(self, path: str, headers: Mapping[str, str]) -> tuple[str, str, str | None]:
        first, slash, rest = path[1:].partition("/")
        settings = self._upstreams.get(first)
        if settings is not None:
            remaining = slash + rest
            if "{" not in settings.base_url:
                return first, remaining, None
            parameter, slash, rest = rest.partition("/")
            if not _PARAMETER.fullmatch(parameter):
                raise RoutingError(
                    404, f"/{first}/ needs a name after it, as in /{first}/<name>{slash}{rest}"
                )
            return first, slash + rest, parameter
        return self._by_shape(path, headers), path, None

    def _by_shape(self, path: str, headers: Mapping[str, str]) -> str:
        """The upstream of a path that names none."""
        rest = path.lstrip("/")
        if _GEMINI.match(path) and ("x-goog-api-key" in headers or ":" in path):
            return self._known("gemini")
        if rest.startswith(("v1/messages", "v1/complete")) and not rest.startswith(
            "v1/completions"
        ):
            return self._known("anthropic")
        if "anthropic-version" in headers:
            return self._known("anthropic")
        if "x-goog-api-key" in headers:
            return self._known("gemini")
        if path in ("/", "") and "claude" in headers.get("user-agent", ""):
            return self._known("anthropic")
        if re.match(r"v\d", rest) or path.startswith("//"):
            return self._known("openai")
        raise RoutingError(
            404,
            "no upstream for this path: use /v1/…, or /<upstream>/…, with one of "
            + ", ".join(sorted(self._upstreams)),
        )

    def _known(self, name: str) -> str:
        if name not in self._upstreams:
            raise RoutingError(404, f"the upstream {name!r} is not configured")
        return name

    def _destination(self, name: str, parameter: str | None) -> Destination:
        found = self._destinations.get((name, parameter))
        if found is None:
            found = resolve(name, self._upstreams[name], parameter)
            if len(self._destinations) < 4096:
                self._destinations[(name, parameter)] = found
        return found


def resolve(name: str, settings: UpstreamSettings, parameter: str | None) -> Destination:
    """Fill a base URL's template and take it apart."""
    url = settings.base_url
    if parameter is not None:
        url = re.sub(r"\{[a-z]+\}", parameter.lower(), url)
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    origin = Origin(host, parts.port or (443 if tls else 80), tls, name)
    provider = settings.provider or provider_of(host, parts.path)
    if provider in ("", "unknown"):
        provider = name
    return Destination(name, settings, origin, parts.path.rstrip("/"), provider, url)
