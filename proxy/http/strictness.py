"""What a request's head must be, beyond what the parser refuses.

Owns: the rules that keep a request from being read in two ways. Must never: mend
what is wrong.

Requests are read with httptools (llhttp in strict mode), which refuses two lengths,
length and chunks together, folded fields, bare line feeds and NUL. What llhttp lets
pass and a proxy must not is refused here.
"""

from __future__ import annotations

from typing import Protocol

import httptools

from proxy.http.request import Head

_HOST_FORBIDDEN = frozenset(b"/?#@\\ \t")


class BadRequestError(Exception):
    """A request that can't be read, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check(head: Head) -> None:
    """Refuse what can be read in two ways. Raises :class:`BadRequestError`."""
    if head.method == "CONNECT":
        raise BadRequestError(405, "CONNECT is not served: use the proxy's address as base URL")
    hosts = [value for name, value in head.raw if name.lower() == b"host"]
    if len(hosts) > 1 or (not hosts and head.minor_version):
        raise BadRequestError(400, "exactly one Host field is needed")
    if hosts and not _HOST_FORBIDDEN.isdisjoint(hosts[0]):
        raise BadRequestError(400, "the Host field holds more than a host and a port")
    encoding = head.headers.get("transfer-encoding")
    if encoding is not None:
        if not head.minor_version:
            raise BadRequestError(400, "Transfer-Encoding is not allowed in HTTP/1.0")
        if encoding.strip().lower() != "chunked":
            raise BadRequestError(400, "only Transfer-Encoding: chunked is served")


def upgrade_is_ignored(head: Head, length: int | None) -> bool:
    """Is an upgrade asked for that is not done, on a request with a body of ``length``?

    llhttp reads no body where an upgrade is asked for. Raises :class:`BadRequestError`.
    """
    body = "transfer-encoding" in head.headers or bool(length)
    if "websocket" not in head.headers.get("upgrade", "").lower():
        return body
    if body:
        raise BadRequestError(400, "a WebSocket handshake may have no body")
    return False


def bad_request(error: httptools.HttpParserError) -> BadRequestError:
    """What was wrong: what a callback raised, or what the parser found, in its words."""
    if isinstance(error.__context__, BadRequestError):
        return error.__context__
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return BadRequestError(400, "unknown method")
    text = str(error)
    return BadRequestError(400, text if 0 < len(text) < 120 else "the request can't be read")


def fault_of(error: httptools.HttpParserError) -> BaseException | None:
    """What a callback of ours raised that has nothing to do with the request's form."""
    if not isinstance(error, httptools.HttpParserCallbackError):
        return None
    cause = error.__context__
    return None if isinstance(cause, BadRequestError) else cause


class TakesBody(Protocol):
    """Who is told of a body."""

    def on_body(self, body: bytes) -> None: ...
    def body_read(self) -> None: ...


class _BodyOnly:
    """Callbacks that take a body and leave the head, which is known already."""

    def __init__(self, taker: TakesBody) -> None:
        self.on_body = taker.on_body
        self.on_message_complete = taker.body_read


def body_parser(taker: TakesBody, length: int | None) -> httptools.HttpRequestParser:
    """A parser in the middle of a message: ``length`` bytes of body come, or chunks.

    llhttp reads no body where an upgrade is asked for, also where it is not granted.
    """
    parser = httptools.HttpRequestParser(_BodyOnly(taker))
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
    return parser
