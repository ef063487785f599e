"""Who calls: agent, project, user, session, tags and credential of a request.

Owns: which header fields and body members name whom, and in which order they
win. Must never: keep a credential, or let a name through that could break a
log line, a metric or a header.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from proxy.providers.base import RequestFacts
from proxy.redact import clean_name

_MAX_NAME = 128
_MAX_TAGS = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PRODUCT = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

AGENT_FIELDS = ("x-tokenweir-agent", "x-litellm-agent-id", "x-agent-id")
PROJECT_FIELDS = ("x-tokenweir-project", "openai-project")
USER_FIELDS = ("x-tokenweir-user", "helicone-user-id", "x-litellm-end-user-id")
SESSION_FIELDS = (
    "x-tokenweir-session",
    "helicone-session-id",
    "x-claude-code-session-id",
    "x-session-id",
    "session-id",
    "session_id",
    "thread-id",
)
METADATA_FIELDS = ("x-portkey-metadata", "cf-aig-metadata")
TAG_FIELDS = ("x-tokenweir-tags", "x-litellm-tags")
PROPERTY = "helicone-property-"
_NAMING = frozenset(
    (
        *AGENT_FIELDS,
        *PROJECT_FIELDS,
        *USER_FIELDS,
        *SESSION_FIELDS,
        *METADATA_FIELDS,
        *TAG_FIELDS,
        "user-agent",
        "x-forwarded-for",
    )
)
_META_NAMES = {
    "_user": "user",
    "user": "user",
    "user_id": "user",
    "agent": "agent",
    "agent_id": "agent",
    "project": "project",
    "session": "session",
    "session_id": "session",
}


class IdentityError(ValueError):
    """A name that may not be used, with the field that holds it."""


class Credential(NamedTuple):
    """Where a request's credential stands, and what it is."""

    value: str
    field: str


@dataclass(slots=True)
class Identity:
    """What a request's head says of its caller."""

    agent: str | None
    project: str | None
    user: str | None
    session: str | None
    tags: dict[str, str]
    credential: Credential | None
    #: The program that the User-Agent names: the agent, where nobody else says who it is.
    program: str | None

    def by(self, credential: Credential | None) -> Identity:
        """The same with another credential; the tags stay shared."""
        return Identity(
            self.agent, self.project, self.user, self.session, self.tags, credential, self.program
        )


def credential_of(headers: Mapping[str, str], query: str) -> Credential | None:
    """The first credential of a request, by the fields that SDKs use."""
    for name in ("x-api-key", "api-key", "x-goog-api-key"):
        value = headers.get(name)
        if value:
            return Credential(value.strip(), name)
    value = headers.get("authorization", "")
    if value:
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "bearer":
            return Credential(rest.strip(), "authorization") if rest.strip() else None
        if scheme == "AWS4-HMAC-SHA256":
            found = re.search(r"Credential=([^/,\s]+)", rest)
            return Credential(found.group(1), "aws") if found else None
        return Credential(value, "authorization")
    if query and "key=" in query:
        for part in query.split("&"):
            if part.startswith("key=") and len(part) > 4:
                return Credential(part[4:], "query")
    return None


def read_head(headers: Mapping[str, str], path_agent: str | None, query: str) -> Identity:
    """Read a request's identity. Raises :class:`IdentityError` on a bad name."""
    found = Identity(
        agent=_clean(path_agent, "the agent in the path") or _first(headers, AGENT_FIELDS),
        project=_first(headers, PROJECT_FIELDS),
        user=_first(headers, USER_FIELDS),
        session=_first(headers, SESSION_FIELDS),
        tags={},
        credential=credential_of(headers, query),
        program=_program(headers.get("user-agent", "")),
    )
    for name in METADATA_FIELDS:
        if name in headers:
            _from_metadata(found, headers[name])
    for name in TAG_FIELDS:
        if name in headers:
            _add_tags(found.tags, parse_tags(headers[name], name))
    for name, value in headers.items():
        if name.startswith(PROPERTY):
            _add_tags(found.tags, {name[len(PROPERTY) :]: value})
    return found


def names_nobody(field: str) -> bool:
    """Does a field, by its lower-case name, say nothing of the caller but the credential?"""
    return field not in _NAMING and not field.startswith(PROPERTY)


def trace_of(headers: Mapping[str, str]) -> str | None:
    """The W3C ``traceparent`` that a request came with, if it reads like one."""
    value = headers.get("traceparent")
    return value if value and _TRACEPARENT.fullmatch(value) else None


def completed(head: Identity, facts: RequestFacts) -> Identity:
    """What the head says, and what it left open filled from the body; the tags stay shared."""
    metadata = facts.metadata
    return replace(
        head,
        user=head.user or _soft(facts.user),
        session=head.session or _soft(facts.session),
        agent=head.agent or _soft(metadata.get("agent") or metadata.get("agent_id")),
        project=head.project or _soft(metadata.get("project")),
    )


def _program(user_agent: str) -> str | None:
    product = _PRODUCT.match(user_agent.partition("/")[0].strip())
    return product.group() if product else None


def parse_tags(text: str, field: str) -> dict[str, str]:
    """Tags as a JSON object or list, or as ``k=v,k=v``; a bare word is its own name."""
    text = text.strip()
    if text[:1] in ("{", "["):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise IdentityError(f"{field}: not valid JSON, {error}") from None
        pairs = value.items() if isinstance(value, dict) else ((v, v) for v in value)
        return {
            str(k): str(v)
            for k, v in pairs
            if isinstance(k, str) and isinstance(v, str | int | float | bool)
        }
    found = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name:
            found[name.strip()] = value.strip() if equals else name.strip()
    return found


def client_network(address: str) -> str:
    """The network that a client's address stands for: /24 in IPv4, /48 in IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


def real_address(
    peer: str,
    headers: Mapping[str, str],
    trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...],
) -> str:
    """The client's address: the peer's, or behind trusted proxies the last untrusted hop."""
    if not trusted or not _within(peer, trusted):
        return peer
    for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
        hop = hop.strip()
        if hop and not _within(hop, trusted):
            return hop
    return peer


def _within(
    address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks if network.version == parsed.version)


class NameCap:
    """Bounds how many distinct names of a dimension are told apart.

    ``wanted`` says which must be in any case, such as those that are blocked. Sessions
    come and go and no series is kept of them: they are bounded by the hour.
    """

    def __init__(
        self,
        most: int,
        wanted: Callable[[str, str], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._wanted = wanted
        self._monotonic = monotonic
        self._hour_began = monotonic()
        #: Names of agents and models that are told as they are: asked for at every call.
        self.agents: set[str] = set()
        self.models: set[str] = set()
        self._seen = {"agent": self.agents, "model": self.models}

    def told(self, dimension: str, name: str | None) -> str | None:
        """The name itself, or ``other`` when the dimension is full."""
        if name is None:
            return None
        seen = self._seen.get(dimension)
        if seen is None:
            seen = self._seen[dimension] = set()
        if name in seen:
            return name
        if len(seen) >= self._most:
            if dimension != "session" or self._monotonic() - self._hour_began < 3600.0:
                return name if self._wanted(dimension, name) else "other"
            seen.clear()
            self._hour_began = self._monotonic()
        seen.add(name)
        return name


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = headers.get(name)
        if value:
            return _clean(value, name)
    return None


def _clean(value: str | None, field: str) -> str | None:
    if value is None:
        return None
    value = value.strip()
    if not value:
        return None
    if _CONTROL.search(value):
        raise IdentityError(f"{field}: control characters are not allowed in a name")
    if len(value) > _MAX_NAME:
        raise IdentityError(f"{field}: at most {_MAX_NAME} characters, got {len(value)}")
    return clean_name(value)


def _soft(value: str | None) -> str | None:
    """A name from a body: made harmless rather than refused, since bytes pass untouched."""
    if not value:
        return None
    return clean_name(_CONTROL.sub("", value).strip()[:_MAX_NAME]) or None


def _add_tags(tags: dict[str, str], more: Mapping[str, str]) -> None:
    for name, value in more.items():
        if len(tags) >= _MAX_TAGS:
            return
        clean = _soft(name)
        if clean:
            tags[clean] = _soft(value) or ""


def _from_metadata(found: Identity, text: str) -> None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if not isinstance(value, dict):
        return
    rest: dict[str, str] = {}
    for name, item in value.items():
        if not isinstance(item, str | int | float):
            continue
        text_item = _soft(str(item))
        target = _META_NAMES.get(name)
        if target and text_item:
            if getattr(found, target) is None:
                setattr(found, target, text_item)
        elif text_item:
            rest[name] = text_item
    _add_tags(found.tags, rest)
