"""What one request is: its route, its endpoint, its caller, and its upstream head.

Owns: the steps from a parsed head (and as much of the body as is looked into)
to a RequestContext and to the bytes that go upstream. Must never: write to a
socket, or keep the body.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.context import RequestContext
from proxy.http.headers import RawHeaders, end_to_end, lower_map
from proxy.http.identity import (
    Credential,
    Identity,
    IdentityError,
    complete,
    read_head,
    real_address,
)
from proxy.http.ports import Caller, Services
from proxy.http.routing import Route, RoutingError
from proxy.providers import ask_for_usage, read_request, recognise, replace_model
from proxy.providers.base import NO_FACTS, Endpoint, Refusal, RequestFacts

_JSON = "json"
_BODY_METHODS = frozenset(("POST", "PUT", "PATCH"))


class RefusedError(Exception):
    """The request can't go on; the refusal says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(slots=True)
class Head:
    """A parsed request head."""

    method: str
    target: str
    minor_version: int
    raw: RawHeaders
    headers: dict[str, str]

    @classmethod
    def of(cls, method: str, target: str, minor_version: int, raw: RawHeaders) -> Head:
        """Index the fields."""
        return cls(method, target, minor_version, raw, lower_map(raw))


@dataclass(slots=True)
class Request:
    """One request, understood."""

    head: Head
    route: Route
    endpoint: Endpoint
    identity: Identity
    caller: Caller | None
    ctx: RequestContext
    facts: RequestFacts = NO_FACTS
    asked_for_usage: bool = False
    model_sent: str | None = None

    @property
    def inspects_body(self) -> bool:
        """Is the body JSON that says what the call costs?"""
        head = self.head
        return (
            self.endpoint.metered
            and head.method in _BODY_METHODS
            and _JSON in head.headers.get("content-type", _JSON)
            and "content-encoding" not in head.headers
        )

    @property
    def wants_websocket(self) -> bool:
        """Does the client ask to switch to a WebSocket?"""
        headers = self.head.headers
        return (
            "websocket" in headers.get("upgrade", "").lower()
            and "upgrade" in headers.get("connection", "").lower()
        )


def understand(services: Services, head: Head, peer: str, now: float) -> Request:
    """Route a request and name its caller. Raises :class:`RefusedError`."""
    try:
        route = services.router.route(head.target, head.headers)
    except RoutingError as error:
        kind = "not_found" if error.status == 404 else "bad_request"
        raise RefusedError(Refusal(kind, str(error))) from None
    except UnicodeError:
        raise RefusedError(Refusal("bad_request", "the path is not valid UTF-8")) from None
    destination = route.destination
    endpoint = recognise(
        destination.provider,
        destination.settings.wire,
        head.method,
        route.path,
        route.query,
        head.headers,
    )
    try:
        identity = read_head(head.headers, route.agent, route.query)
    except IdentityError as error:
        raise RefusedError(Refusal("bad_request", str(error))) from None
    caller = None
    if identity.credential is not None:
        caller = services.keys.identify(identity.credential.value)
    address = real_address(peer, head.headers, services.trusted)
    ctx = RequestContext(
        id=services.new_id(),
        provider=endpoint.provider,
        upstream=destination.name,
        wire=endpoint.wire,
        endpoint=endpoint.name,
        key=caller.key if caller else None,
        client=services.hash_client(address),
        model=endpoint.model,
        stream=endpoint.streams,
        metered=endpoint.metered,
        virtual_key=caller.virtual_key if caller else None,
        received_at=now,
    )
    return Request(head, route, endpoint, identity, caller, ctx, model_sent=endpoint.model)


def read_body(services: Services, request: Request, body: bytes) -> None:
    """Complete the context from the body (or its beginning)."""
    head, endpoint, ctx = request.head, request.endpoint, request.ctx
    if body and request.inspects_body:
        content_type = head.headers.get("content-type", "application/json")
        request.facts = read_request(endpoint, body, content_type, services.fingerprint_key)
    facts, identity, names = request.facts, request.identity, services.names
    complete(identity, facts, head.headers)
    caller = request.caller
    ctx.facts = facts
    ctx.model = names("model", facts.model or endpoint.model)
    ctx.stream = facts.stream or endpoint.streams
    ctx.agent = names("agent", identity.agent)
    ctx.project = names("project", (caller.project if caller else None) or identity.project)
    ctx.user = names("user", identity.user)
    ctx.session = names("session", identity.session)
    ctx.tags = {name: names(f"tag:{name}", value) or "" for name, value in identity.tags.items()}
    request.model_sent = facts.model or endpoint.model


def upstream_body(request: Request, body: bytes, model: str | None) -> tuple[str, bytes]:
    """The path and body to send: as they came, but for a downgrade and the usage option."""
    path = request.route.path
    if model is not None and model != request.model_sent:
        path, body = replace_model(request.endpoint, path, body, model)
        request.model_sent = model
    if request.facts.stream and request.facts.include_usage is False:
        asked = ask_for_usage(body)
        request.asked_for_usage = asked != body
        body = asked
    return path, body


def upstream_head(
    request: Request, path: str, *, length: int | None, keep_upgrade: bool = False
) -> bytes:
    """The head to send. ``length`` of the body, ``None`` for a chunked one, -1 for none."""
    head, route = request.head, request.route
    settings = route.destination.settings
    drop = [b"expect", b"host"]
    if length != -1:
        drop.append(b"content-length")
    if request.asked_for_usage:
        # Its extra chunk has to be taken out again, which a compressed stream does not allow.
        drop.append(b"accept-encoding")
    fields = end_to_end(head.raw, drop=drop)
    target = route.target(path)
    credential = request.identity.credential
    if request.ctx.virtual_key is not None and credential is not None:
        fields, target = _swap(fields, target, credential, settings.api_key, request.ctx.wire)
    lines = [
        f"{head.method} {target} HTTP/1.1\r\nHost: {route.destination.origin.authority}".encode(
            "latin-1"
        )
    ]
    lines += [name + b": " + value for name, value in fields]
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif length >= 0:
        lines.append(b"Content-Length: %d" % length)
    if keep_upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def _swap(
    fields: RawHeaders, target: str, credential: Credential, secret: object, wire: str
) -> tuple[RawHeaders, str]:
    """Put the provider's key where the client put ours."""
    key = secret.get_secret_value() if hasattr(secret, "get_secret_value") else None
    if key is None:
        raise RefusedError(
            Refusal(
                "forbidden",
                "this upstream has no api_key configured, so a key issued by the proxy can't be "
                "used with it; set upstreams.<name>.api_key",
            )
        )
    if credential.field == "query":
        return fields, target.replace(f"key={credential.value}", f"key={key}")
    if wire == "anthropic" and credential.field == "authorization":
        # Anthropic takes API keys in x-api-key; a Bearer there is an OAuth token.
        fields = [(n, v) for n, v in fields if n.lower() != b"authorization"]
        return [*fields, (b"x-api-key", key.encode())], target
    new = f"Bearer {key}" if credential.field == "authorization" else key
    name = credential.field.encode()
    return [(n, new.encode() if n.lower() == name else v) for n, v in fields], target
