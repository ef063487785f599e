"""What one request is: its route, its endpoint, its caller, and its upstream head.

Owns: the steps from a parsed head (and as much of the body as is looked into)
to a RequestContext and to the bytes that go upstream. Must never: write to a
socket, or keep the body.

Clients send the same head again and again on one connection, but for the length of
the body. What follows from the head alone is a :class:`Template`, worked out once
for a connection and used for every request that has the same head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from proxy.context import RequestContext
from proxy.gate_decision import Decision
from proxy.http.errors import RefusedError
from proxy.http.headers import RawHeaders, scan
from proxy.http.identity import (
    Credential,
    Identity,
    IdentityError,
    completed,
    credential_of,
    read_head,
    real_address,
    trace_of,
)
from proxy.http.pool import OriginPool
from proxy.http.ports import Caller, Services
from proxy.http.routing import Route, Router, RoutingError
from proxy.http.settings import AWSSettings
from proxy.http.swap import swapped
from proxy.providers import ask_for_usage, read_request, recognise, replace_model
from proxy.providers.base import NO_FACTS, Endpoint, Refusal, RequestFacts

_BODY_METHODS = frozenset(("POST", "PUT", "PATCH"))
#: Fields that the upstream's head gets anew.
_OURS = frozenset(("expect", "host", "content-length"))
_new = object.__new__
#: The fields of a head that no parser has read.
_UNREAD: RawHeaders = []
_UNSIGNABLE = "a body over server.inspect_body_bytes can't be signed for AWS"


class Head:
    """A parsed request head, without the length of its body.

    ``template`` is what was worked out from it, once; ``kin`` the template of a head of the
    same connection that differs in no field that routes; ``same_caller`` if in none that
    names its caller either, but for the credential.
    """

    __slots__ = (
        "headers",
        "kin",
        "method",
        "minor_version",
        "passed",
        "raw",
        "same_caller",
        "target",
        "template",
    )

    def __init__(self, method: str, target: str, minor_version: int, raw: RawHeaders) -> None:
        self.method = method
        self.target = target
        self.minor_version = minor_version
        self.raw = raw
        #: Lower-case names and their last values, and the lines that go on, of all but the
        #: body's length.
        self.headers, names, lines = scan(raw)
        self.passed = list(zip(names, lines, strict=True))
        self.template: Template | None = None
        self.kin: Template | None = None
        self.same_caller = False

    @classmethod
    def varied(
        cls, like: Head, fields: Iterable[tuple[int, str, bytes]], *, same_caller: bool
    ) -> Head:
        """A head with other values in some fields.

        Each is told by its place among the lines that are passed on, its name in lower
        case, and its whole line. ``same_caller``: none names the caller, but for the credential.
        """
        head = _new(cls)
        head.method, head.target, head.minor_version = like.method, like.target, like.minor_version
        found, passed = like.headers.copy(), like.passed.copy()
        for place, name, line in fields:
            found[name] = line[len(name) + 2 :].decode("latin-1")
            passed[place] = (name, line)
        head.raw, head.headers, head.passed = _UNREAD, found, passed
        head.template, head.kin = None, like.template or like.kin
        head.same_caller = same_caller and (like.template is not None or like.same_caller)
        return head

    @property
    def wants_websocket(self) -> bool:
        """Does the client ask to switch to a WebSocket?"""
        headers = self.headers
        return (
            "upgrade" in headers
            and "websocket" in headers["upgrade"].lower()
            and "upgrade" in headers.get("connection", "").lower()
        )


@dataclass(slots=True)
class Template:
    """What follows from a head alone."""

    router: Router
    route: Route
    endpoint: Endpoint
    identity: Identity
    caller: Caller | None
    #: The context of a call that has this head, before its body is read.
    known: dict[str, Any]
    inspects_body: bool
    signs: bool
    must_close: bool
    wants_websocket: bool
    content_type: str
    upstream_head: bytes | None = None
    #: Where its calls go, as long as that is in use.
    pool: OriginPool | None = None
    #: What its calls begin with on their way there.
    first_line: bytes | None = None


@dataclass(slots=True)
class Request:
    """One request, understood."""

    head: Head
    template: Template
    caller: Caller | None
    ctx: RequestContext
    facts: RequestFacts = NO_FACTS
    asked_for_usage: bool = False
    model_sent: str | None = None
    decision: Decision | None = None
    first_byte_at: float | None = None

    @property
    def route(self) -> Route:
        """Where it goes."""
        return self.template.route

    @property
    def endpoint(self) -> Endpoint:
        """What it calls."""
        return self.template.endpoint


def make_template(services: Services, head: Head, peer: str) -> Template:
    """Route a head and name its caller. Raises :class:`RefusedError`."""
    headers, router = head.headers, services.router
    kin, head.kin = head.kin, None
    if kin is not None and kin.router is router:
        if head.same_caller:
            return _by_credential(services, kin, headers)
        route, endpoint = kin.route, kin.endpoint
    else:
        route, endpoint = _routed(router, head)
    destination = route.destination
    try:
        identity = read_head(headers, route.agent, route.query)
    except IdentityError as error:
        raise RefusedError(Refusal("bad_request", str(error))) from None
    credential = identity.credential
    caller = services.keys.identify(credential.value) if credential is not None else None
    content_type = headers.get("content-type", "application/json")
    known = RequestContext(
        id="",
        provider=endpoint.provider,
        upstream=destination.name,
        wire=endpoint.wire,
        endpoint=endpoint.name,
        key=caller.key if caller else None,
        client=services.hash_client(real_address(peer, headers, services.trusted)),
        model=endpoint.model,
        stream=endpoint.streams,
        metered=endpoint.metered,
        virtual_key=caller.virtual_key if caller else None,
        trace=trace_of(headers),
    )
    return Template(
        router=router,
        route=route,
        endpoint=endpoint,
        identity=identity,
        caller=caller,
        known=vars(known),
        inspects_body=endpoint.metered
        and head.method in _BODY_METHODS
        and ("json" in content_type or "multipart/form-data" in content_type),
        signs=_signs(route.destination.settings.aws, credential, caller),
        must_close=not head.minor_version or "close" in headers.get("connection", "").lower(),
        wants_websocket=head.wants_websocket,
        content_type=content_type,
    )


def _by_credential(services: Services, kin: Template, headers: dict[str, str]) -> Template:
    """The template of a head that differs from another's in its credential or its trace alone."""
    route = kin.route
    credential = credential_of(headers, route.query)
    caller = services.keys.identify(credential.value) if credential is not None else None
    known = kin.known.copy()
    known["key"] = caller.key if caller else None
    known["virtual_key"] = caller.virtual_key if caller else None
    known["trace"] = trace_of(headers)
    return Template(
        kin.router,
        route,
        kin.endpoint,
        kin.identity.by(credential),
        caller,
        known,
        kin.inspects_body,
        _signs(route.destination.settings.aws, credential, caller),
        kin.must_close,
        kin.wants_websocket,
        kin.content_type,
        None,
        kin.pool,
        kin.first_line,
    )


def _routed(router: Router, head: Head) -> tuple[Route, Endpoint]:
    """Where a head goes, and what it calls there. Raises :class:`RefusedError`."""
    try:
        route = router.route(head.target, head.headers)
    except RoutingError as error:
        kind = "not_found" if error.status == 404 else "bad_request"
        raise RefusedError(Refusal(kind, str(error))) from None
    except UnicodeError:
        raise RefusedError(Refusal("bad_request", "the path is not valid UTF-8")) from None
    to = route.destination
    endpoint = recognise(
        to.provider, to.settings.wire, head.method, route.path, route.query, head.headers
    )
    return route, endpoint


def _signs(
    settings: AWSSettings | None, credential: Credential | None, caller: Caller | None
) -> bool:
    """Does the call go out with a signature of ours?"""
    if settings is None or credential is None or caller is None:
        return False
    if caller.virtual_key is not None:
        return True
    return settings.clients == "all" and credential.field == "aws"


def understand(services: Services, head: Head, peer: str, now: float) -> Request:
    """One request of a peer's address. Raises :class:`RefusedError`."""
    template = head.template
    if template is None or template.router is not services.router:
        template = head.template = make_template(services, head, peer)
    caller, credential = template.caller, template.identity.credential
    if caller is not None and caller.virtual_key is not None and credential is not None:
        caller = services.keys.identify(credential.value)  # it can have been revoked since
    new_id, known = services.new_id, template.known.copy()
    known["id"], known["received_at"] = new_id(), now
    ctx = _new(RequestContext)
    ctx.__dict__ = known
    if caller is not template.caller and caller is not None:
        ctx.key, ctx.virtual_key = caller.key, caller.virtual_key
    return Request(head, template, caller, ctx)


def read_body(services: Services, request: Request, body: bytes) -> None:
    """Complete the context from the body (or its beginning)."""
    template, ctx = request.template, request.ctx
    endpoint, facts = template.endpoint, NO_FACTS
    if body and template.inspects_body:
        encoding = request.head.headers.get("content-encoding", "")
        kind, key = template.content_type, services.fingerprint_key
        facts = read_request(endpoint, body, kind, key, encoding)
        request.facts = facts
    identity, names = template.identity, services.names
    if facts.metadata or facts.user or facts.session:
        identity = completed(identity, facts)
    project = identity.project
    if request.caller is not None and request.caller.project:
        project = request.caller.project
    model = request.model_sent = facts.model or endpoint.model
    ctx.facts = facts
    ctx.model = model if model in names.models else names.told("model", model)
    ctx.stream = facts.stream or endpoint.streams
    agent = identity.agent or identity.program
    ctx.agent = agent if agent in names.agents else names.told("agent", agent)
    if project:
        ctx.project = names.told("project", project)
    if identity.user:
        ctx.user = names.told("user", identity.user)
    if identity.session:
        ctx.session = names.told("session", identity.session)
    if identity.tags:
        ctx.tags = {
            name: names.told(f"tag:{name}", value) or "" for name, value in identity.tags.items()
        }


def upstream_body(request: Request, body: bytes, model: str | None) -> tuple[str, bytes]:
    """The path and body to send: as they came, but for a downgrade and the usage option."""
    path = request.template.route.path
    if model is not None and model != request.model_sent:
        changed = replace_model(request.endpoint, path, body, model)
        if changed != (path, body):  # else it stands where nothing can be changed: compressed, say
            path, body = changed
            request.model_sent = model
    if request.facts.stream and request.facts.include_usage is False:
        asked = ask_for_usage(body)
        request.asked_for_usage = asked != body
        body = asked
    return path, body


def upstream_head(
    services: Services, request: Request, path: str, length: int | None, body: bytes | None
) -> bytes:
    """The head to send. Raises :class:`RefusedError`.

    ``length`` of the body, ``None`` for a chunked one, -1 for none. ``body`` is needed
    for a signature: ``None`` where it is not whole, or no signature is asked for.
    """
    template = request.template
    usual = path == template.route.path and not request.asked_for_usage
    usual = usual and request.ctx.virtual_key is None and not template.signs
    head = template.upstream_head if usual else None
    if head is None:
        head = _fields_to_send(services, request, path, body)
        if usual:
            template.upstream_head = head
    if length is None:
        head += b"Transfer-Encoding: chunked\r\n"
    elif length >= 0:
        head += b"Content-Length: %d\r\n" % length
    if template.wants_websocket:
        head += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    return head + b"\r\n"


def _fields_to_send(services: Services, request: Request, path: str, body: bytes | None) -> bytes:
    """The request line and the fields that go on, without those that frame the body."""
    head, template = request.head, request.template
    route, credential = template.route, template.identity.credential
    drop = _OURS
    if request.asked_for_usage:
        # Its extra chunk has to be taken out again, which a compressed stream does not allow.
        drop = _OURS | {"accept-encoding"}
    fields = head.passed
    if template.signs:
        if body is None:
            raise RefusedError(Refusal("too_large", _UNSIGNABLE))
        target = route.target(path)
        # The signature is over these.
        kept = [field for field in fields if field[0] not in drop]
        fields = services.signer.sign(kept, head.method, route, target, body)
        first = _first_line(head, route, target)
    elif request.ctx.virtual_key is not None and credential is not None:
        key = route.destination.settings.api_key
        if key is None:
            own = "aws" if credential.field == "aws" else "api_key"
            raise RefusedError(
                Refusal(
                    "forbidden",
                    "a key issued by the proxy needs the provider's own: set "
                    f"upstreams.{route.destination.name}.{own}",
                )
            )
        fields, target = swapped(
            fields, route.target(path), credential, key.get_secret_value(), request.ctx.wire
        )
        first = _first_line(head, route, target)
    elif path != route.path:
        first = _first_line(head, route, route.target(path))
    else:
        if template.first_line is None:
            template.first_line = _first_line(head, route, route.target())
        first = template.first_line
    lines = [first]
    for name, line in fields:
        if name not in drop:
            lines.append(line)
    lines.append(b"")
    return b"\r\n".join(lines)


def _first_line(head: Head, route: Route, target: str) -> bytes:
    """The request line, and the Host."""
    first = f"{head.method} {target} HTTP/1.1\r\nHost: {route.destination.origin.authority}"
    return first.encode("latin-1")
