"""One connection of a client: requests in, answers out, in order.

Owns: HTTP/1.x framing of requests, deadlines and the order of pipelined calls.
Must never: forward what it has not understood, or wait for a client without a
limit.

Clients send the same head again and again, but for the body's length. A call whose
head is byte for byte the one that was parsed before, but for these digits, and
whose body is here, needs no parser: what the parser said still holds. Nor does one that
differs in values which frame and route nothing (``known.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque

import httptools
import structlog

from proxy.http import errors
from proxy.http.deadlines import NEVER
from proxy.http.forward import Exchange
from proxy.http.headers import RawHeaders
from proxy.http.known import KnownHead, known_head
from proxy.http.link import Link
from proxy.http.outbox import ENOUGH_BYTES
from proxy.http.ports import Cuttable, Port
from proxy.http.request import Head
from proxy.http.strictness import (
    BadRequestError,
    bad_request,
    body_parser,
    check,
    fault_of,
    upgrade_is_ignored,
)
from proxy.http.websocket import Tunnel

_log = structlog.get_logger("tokenweir.http")
_MAX_TARGET = 65_536
_MAX_PIPELINED = 32
#: How long one who had connected before the port closed may take to ask.
_LAST_CALL_SECONDS = 2.0


class ClientConnection(Link):
    """One connection of a client."""

    __slots__ = (
        "_bad",
        "_body_timeout",
        "_deaf",
        "_exchanges",
        "_field_bytes",
        "_fields",
        "_final",
        "_head_bytes",
        "_heads",
        "_in_head",
        "_known",
        "_last",
        "_length",
        "_parser",
        "_receiving",
        "_target",
        "_tunnel",
        "_upgrade_ignored",
        "peer",
    )

    def __init__(self, server: Port) -> None:
        super().__init__(server)
        self.peer = ""
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: RawHeaders = []
        self._field_bytes = 0
        self._length: int | None = None
        self._last: Head | None = None
        self._head_bytes = 0
        self._heads = 0
        self._in_head = False
        self._known: KnownHead | None = None
        self._receiving: Exchange | None = None
        self._exchanges: deque[Exchange] = deque()
        self._tunnel: Tunnel | None = None
        self._deaf = self._final = False
        self._upgrade_ignored = False
        self._bad: BadRequestError | None = None

    # -- asyncio -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self.deadline = self._loop.time() + self._server.settings.header_timeout_seconds
        if not self._server.admit(self):
            self.send(errors.bare(503, "too many connections"))
            self.close_after()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._server.forget(self)
        if self._tunnel is not None:
            tunnel, self._tunnel = self._tunnel, None
            tunnel.client_gone()
            return
        if self._exchanges:
            self._server.leave(self._exchanges)
            self._exchanges.clear()

    def eof_received(self) -> bool:
        self._outbox.flush()
        return False

    def pause_writing(self) -> None:
        self.deadline = self._loop.time() + self._server.settings.write_timeout_seconds
        if self._tunnel is not None:
            self._tunnel.client_paused()
        elif self._exchanges:
            self._exchanges[0].client_paused()

    def resume_writing(self) -> None:
        self.deadline = NEVER
        if self._tunnel is not None:
            self._tunnel.client_resumed()
        elif self._exchanges:
            self._exchanges[0].client_resumed()

    def on_deadline(self) -> None:
        """Too slow: say so where an answer is still possible, and close."""
        if not self._exchanges and self._fields:
            self.send(errors.bare(408, "the request's head took too long"))
        elif self._receiving is not None and len(self._exchanges) == 1:
            self._exchanges[0].client_gone()
            self._exchanges.clear()
        # At once where a whole answer can no longer be given.
        if self._exchanges or self.transport is None:
            self.abort()
        else:
            self.close_after()

    def data_received(self, data: bytes) -> None:
        if len(data) >= ENOUGH_BYTES:
            self._rest_of_turn_to_others()
        try:
            self._take(data)
        except Exception as error:
            self._broke(error)

    def _take(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.on_client_data(data)
            return
        if self._closing or self._deaf:
            return
        fresh = False
        if self._receiving is None:
            fresh = not self._in_head
            if fresh and self._known is not None:
                body = self._known.body_of(data)
                if body is not None:
                    self._take_whole(self._known.head, body)
                    return
                varied = self._known.varied(data, self._server.settings.max_header_bytes)
                if varied is not None:
                    self._known, body = varied
                    self._take_whole(self._known.head, body)
                    return
            self._heads = 0
            self._head_bytes += len(data)
        else:
            self.deadline = self._loop.time() + self._server.settings.body_timeout_seconds
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self._upgraded(data, switched.args[0])
            return
        except httptools.HttpParserError as error:
            fault = fault_of(error)
            if fault is not None:
                raise fault from None
            self._reject(bad_request(error))
        if self._receiving is None and self._head_bytes > self._server.settings.max_header_bytes:
            self._reject(BadRequestError(431, "the request's head is too large"))
        elif fresh and self._heads == 1 and self._last is not None:
            self._known = known_head(data, self._last)

    def _take_whole(self, head: Head, body: bytes) -> None:
        """A call whose head is known and whose body is here."""
        exchange = Exchange(self._server.services, self, head, len(body), body)
        self.deadline = NEVER
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            exchange.start()
            if not self._exchanges:
                self._rest()

    # -- httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self._target = b""
        self._fields = []
        self._field_bytes = 0
        self._length = None
        if not self._exchanges:
            self.deadline = self._loop.time() + self._server.settings.header_timeout_seconds

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > _MAX_TARGET:
            raise BadRequestError(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is not None:
            return  # a trailer of the request: allowed, and dropped with its framing
        if len(name) == 14 and name.lower() == b"content-length":
            self._length = int(value)
        else:
            self._fields.append((name, value))
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._server.settings.max_header_bytes:
            raise BadRequestError(431, "the request's head is too large")
        if len(self._fields) > self._server.settings.max_headers:
            raise BadRequestError(431, "too many header fields")

    def on_headers_complete(self) -> None:
        if self._closing:
            return  # no answer could go out any more: nobody may be asked for one
        head = self._checked_head()
        self._in_head = False
        self._final = not self._parser.should_keep_alive()
        self._heads += 1
        self._head_bytes = 0
        if self._parser.should_upgrade():
            self._upgrade_ignored = upgrade_is_ignored(head, self._length)
        exchange = Exchange(self._server.services, self, head, self._length)
        self._receiving = exchange
        self._exchanges.append(exchange)
        self.deadline = self._loop.time() + self._server.settings.body_timeout_seconds
        if len(self._exchanges) == 1:
            exchange.start()
        elif len(self._exchanges) >= _MAX_PIPELINED and not self._paused_by_queue:
            self._paused_by_queue = True
            self._pause_transport()

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            self._receiving.on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_ignored:
            return
        exchange, self._receiving = self._receiving, None
        if exchange is None:
            return
        self._deaf = self._final
        self._fields = []
        self.deadline = NEVER
        exchange.on_body_done()
        if not self._exchanges:
            self._rest()

    # -- what an exchange uses (Downstream) --------------------------------------

    def finished(self, exchange: Cuttable, *, reusable: bool) -> None:
        """An answer is out: on to the next call, or close."""
        if not self._exchanges or self._exchanges[0] is not exchange:
            return
        self._exchanges.popleft()
        if not reusable or self._server.draining:
            if self._receiving is not None:
                self.linger()
            else:
                self.close_after()
            return
        if self._exchanges:
            if self._paused_by_queue and len(self._exchanges) < _MAX_PIPELINED // 2:
                self._paused_by_queue = False
                self._resume_transport()
            self._loop.call_soon(self._start_next)
        elif self._bad is not None:
            self._say_bad()
        elif self._receiving is None:
            self._rest()

    def drain(self) -> None:
        """The port is closing: rest no longer. Who was about to ask may still do so."""
        if self._heads and not self._in_head and self.idle:
            self.close_after()
        elif self.idle:
            self.deadline = min(self.deadline, self._loop.time() + _LAST_CALL_SECONDS)

    def pause(self) -> None:
        """Take no more of the request for now."""
        self._held = True
        self.deadline = NEVER
        self._pause_transport()

    def resume(self) -> None:
        """Take more of the request."""
        if self._held:
            self._held = False
            if self._receiving is not None:
                timeout = self._server.settings.body_timeout_seconds
                self.deadline = self._loop.time() + timeout
            self._resume_transport()

    def become_tunnel(self, tunnel: Tunnel) -> None:
        """From here on the bytes are WebSocket frames."""
        self._tunnel = tunnel
        self._exchanges.clear()
        self.deadline = NEVER

    @property
    def idle(self) -> bool:
        """Is no call under way?"""
        return not self._exchanges and self._tunnel is None

    # -- inside ------------------------------------------------------------------

    def _start_next(self) -> None:
        if self._exchanges and not self._closing:
            try:
                self._exchanges[0].start()
            except Exception as error:
                self._broke(error)

    def _broke(self, error: Exception) -> None:
        """The proxy itself failed on what came: no one may be left waiting for an answer."""
        self._deaf, self._receiving = True, None
        if len(self._exchanges) == 1:
            self._exchanges[0].broke(error)
            if not self._closing:
                self.linger()
        else:
            _log.error("connection_broke", exc_info=error)
            self.abort()

    def _rest(self) -> None:
        self._head_bytes = 0
        self.deadline = self._loop.time() + self._server.services.idle_timeout_seconds
        if self._server.draining:
            self.close_after()

    def _checked_head(self) -> Head:
        """The head; the last one of this connection again, where it is the same."""
        parser, last = self._parser, self._last
        version = parser.get_http_version()
        method = parser.get_method().decode("ascii")
        target = self._target.decode("latin-1")
        if (
            last is not None
            and self._fields == last.raw
            and target == last.target
            and method == last.method
            and version[-1:] == ("1" if last.minor_version else "0")
        ):
            return last
        if version not in ("1.1", "1.0"):
            raise BadRequestError(505, "HTTP/1.0 and HTTP/1.1 are served")
        head = Head(method, target, int(version[-1]), self._fields)
        check(head)
        self._last = head
        return head

    def _reject(self, bad: BadRequestError) -> None:
        """Answer what can't be read, after the calls before it, and close."""
        if self._closing or self._deaf:
            return  # what comes behind the last call is not read
        self._server.services.runtime.rejected[f"http_{bad.status}"] += 1
        self._deaf, self._bad = True, bad
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self._exchanges.remove(receiving)
            receiving.client_gone()
            if receiving.started:
                # Bytes of an answer are out: another one could be taken for its rest.
                self.abort()
                return
        if not self._exchanges:
            self._say_bad()

    def _say_bad(self) -> None:
        if self._bad is not None:
            self.send(errors.bare(self._bad.status, str(self._bad)))
        self.linger()

    def _upgraded(self, data: bytes, offset: int) -> None:
        """llhttp stops at an upgrade: go on by what it was."""
        rest = data[offset:]
        if self._tunnel is not None:
            if rest:
                self._tunnel.on_client_data(rest)
            return
        exchange = self._receiving
        if self._closing:
            return
        if not self._upgrade_ignored or exchange is None:
            self._parser = httptools.HttpRequestParser(self)
            if rest and self._exchanges and self._exchanges[-1].awaits_switch:
                self._exchanges.pop().client_gone()
                self._reject(BadRequestError(400, "data before the upgrade was answered"))
            elif rest:
                self.data_received(rest)
            return
        # An upgrade that we don't do (h2c): the body is read as if it had not been asked for.
        self._upgrade_ignored = False
        self._parser = body_parser(self, self._length)
        if rest:
            self.data_received(rest)

    def body_read(self) -> None:
        """The body of a call with an upgrade that was ignored is whole."""
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()
