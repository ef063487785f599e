"""The client side: one connection to a provider.

Owns: HTTP/1.1 framing of answers and the decision to keep a connection. Must
never: retry, follow a redirect, decode a body, or know what an LLM is.
"""

from __future__ import annotations

import asyncio

import httptools

from proxy.http.deadlines import NEVER
from proxy.http.failures import Failure
from proxy.http.framing import ends_by_close, is_chunked, keep_alive_seconds
from proxy.http.headers import RawHeaders, scan
from proxy.http.known_answer import KnownAnswer
from proxy.http.outbox import ENOUGH_BYTES
from proxy.http.relay import Relay
from proxy.http.upstream_ports import AnswerHandler, Home

_MAX_HEAD_BYTES = 65_536
_MAX_INFORMATIONAL = 16


class UpstreamConnection(asyncio.Protocol):
    """One connection. It serves one call at a time."""

    __slots__ = (
        "_body_until_eof",
        "_chunk_open",
        "_chunked",
        "_head_bytes",
        "_headers",
        "_held",
        "_idle_seconds",
        "_informational",
        "_keep_alive",
        "_keep_alive_seconds",
        "_message_done",
        "_outbox",
        "_parser",
        "_parts",
        "_pending_head",
        "_pool",
        "_reason",
        "_relay",
        "_response_seconds",
        "_seen_head",
        "_status",
        "_trailers",
        "deadline",
        "handler",
        "idle_until",
        "reused",
        "transport",
        "tunnel",
    )

    def __init__(self, pool: Home) -> None:
        self._pool = pool
        self._outbox = pool.outbox
        self.transport: asyncio.Transport | None = None
        self.handler: AnswerHandler | None = None
        self.deadline = NEVER
        self.idle_until = NEVER
        self.reused = False
        self.tunnel = False
        self._held = False
        self._idle_seconds = pool.settings.idle_timeout_seconds
        self._response_seconds = pool.settings.response_timeout_seconds
        self._keep_alive_seconds = pool.settings.keepalive_seconds
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers: RawHeaders = []
        self._trailers: RawHeaders = []
        self._parts: list[bytes] = []
        self._pending_head = False
        self._seen_head = False
        self._message_done = False
        self._keep_alive = False
        self._body_until_eof = False
        self._chunked = self._chunk_open = False
        self._relay: Relay | None = None
        self._head_bytes = 0
        self._informational = 0

    # -- what a call does with it ------------------------------------------------

    def start(self, handler: AnswerHandler, data: bytes, whole: bool = False) -> None:
        """Take the connection for one call and send the request, ``whole`` or its beginning."""
        self.handler = handler
        self._held = False
        if self.transport is not None:
            self._outbox.send(self.transport, data)
        self.deadline = self._pool.loop.time() + self._response_seconds if whole else NEVER

    def write(self, data: bytes) -> None:
        """Send a piece of the request's body."""
        if self.transport is not None:
            self._outbox.send(self.transport, data)

    def expect_answer(self) -> None:
        """The request is out: from now the answer's deadline runs."""
        if not self._seen_head:
            self.deadline = self._pool.loop.time() + self._response_seconds

    def pause(self) -> None:
        """Stop reading: the client is slow. No deadline runs meanwhile."""
        self._held = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self.deadline = NEVER

    def resume(self) -> None:
        """Read on."""
        self._held = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._touch()

    def _read_on(self) -> None:
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def abandon(self) -> None:
        """The call is over before its answer is: close at once."""
        self.handler = None
        self._pool.discard(self)
        if self.transport is not None:
            self.transport.abort()

    def finish(self) -> None:
        """Close after what was written is out."""
        self.handler = None
        self._pool.discard(self)
        self._outbox.flush()
        if self.transport is not None:
            self.transport.close()

    # -- asyncio -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._pool.deadlines.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.discard(self)
        handler, self.handler = self.handler, None
        if handler is None:
            return
        if self._body_until_eof and exc is None:
            handler.on_answer_data(b"", True, ())
        elif self._seen_head or self.tunnel:
            handler.on_upstream_failure(Failure.TRUNCATED)
        else:
            stale = self.reused and self._head_bytes == 0
            handler.on_upstream_failure(Failure.STALE if stale else Failure.RESET)

    def pause_writing(self) -> None:
        self._touch()
        if self.handler is not None:
            self.handler.on_upstream_paused()

    def resume_writing(self) -> None:
        self.deadline = NEVER
        if self.handler is not None:
            self.handler.on_upstream_resumed()

    def on_deadline(self) -> None:
        handler = self.handler
        if handler is None:
            self.abandon()
            return
        self.handler = None
        self.abandon()
        handler.on_upstream_failure(
            Failure.IDLE_TIMEOUT if self._seen_head else Failure.RESPONSE_TIMEOUT
        )

    def data_received(self, data: bytes) -> None:
        handler = self.handler
        if len(data) >= ENOUGH_BYTES and self.transport is not None:
            self.transport.pause_reading()
            self._pool.loop.call_soon(self._read_on)
        try:
            relay = self._relay
            if relay is None or handler is None:
                self._take(data, handler)
                return
            now = self._pool.loop.time()
            if relay.may_pass(data, now):
                self.deadline = now + self._idle_seconds
                relay.send(data)
            else:
                self._read_relayed(relay, data, now)
        except Exception as error:
            self.abandon()
            if handler is not None:
                handler.broke(error)

    def _take(self, data: bytes, handler: AnswerHandler | None) -> None:
        if handler is None:
            # Nobody asked: a broken or hostile upstream, or a goodbye we can't use.
            self.abandon()
            return
        if self.tunnel:
            handler.on_answer_data(data, False, ())
            return
        fresh = False
        if not self._seen_head:
            # To HEAD comes the head of another answer, without the body that it tells of.
            fresh = not self._head_bytes and handler.method != "HEAD"
            if fresh:
                known = self._pool.answers.read(data)
                if known is not None:
                    self._deliver_known(handler, known[0], known[1])
                    return
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self._switch(data[switched.args[0] :])
            return
        except httptools.HttpParserError:
            self._deliver(b"")
            self._fail(Failure.BAD_FRAMING)
            return
        if not self._seen_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail(Failure.BAD_FRAMING)
            return
        self._deliver(data if fresh else b"")
        if self._chunked and not self._chunk_open and data.endswith(b"\r\n") and self.handler:
            taker = self.handler.raw_taker()
            self._relay = Relay(taker, self._pool.loop.time()) if taker is not None else None

    # -- httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._message_done:
            raise ValueError("an answer that nobody asked for")

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._seen_head:
            self._trailers.append((name, value))
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200 and self._status != 101:
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL:
                raise ValueError("too many informational answers")
            return
        self._seen_head = self._pending_head = True

    def on_chunk_header(self) -> None:
        self._chunk_open = True

    def on_chunk_complete(self) -> None:
        self._chunk_open = False

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._seen_head:
            self._headers = []
            self._reason = b""
            return
        if self._status == 101:
            return
        self._message_done = True
        self._keep_alive = self._parser.should_keep_alive()

    # -- inside ------------------------------------------------------------------

    def _deliver(self, fresh: bytes) -> None:
        """What was read goes to the call. ``fresh``: all that came, if from its first byte on."""
        handler = self.handler
        if handler is None or not self._seen_head:
            return
        if self._pending_head:
            self._pending_head = False
            headers = scan(self._headers)
            self._read_framing(handler.method, headers[0])
            if fresh and self._message_done and self._keep_alive:
                answers = self._pool.answers
                answers.learn(fresh, self._status, self._reason, self._headers, headers)
            handler.on_answer_head(self._status, self._reason, headers)
            if self.handler is not handler:
                return
        data = self._body()
        if self._message_done:
            trailers = self._trailers
            self._release()
            handler.on_answer_data(data, True, trailers)
            return
        self._touch()
        handler.on_answer_data(data, False, ())

    def _deliver_known(self, handler: AnswerHandler, known: KnownAnswer, body: bytes) -> None:
        headers = known.headers
        if "keep-alive" in headers[0]:
            self._keep_alive_seconds = keep_alive_seconds(headers[0], self._keep_alive_seconds)
        handler.on_answer_head(known.status, known.reason, headers)
        if self.handler is handler:
            self._let_go(keep=True)
            handler.on_answer_data(body, True, ())

    def _body(self) -> bytes:
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_relayed(self, relay: Relay, data: bytes, now: float) -> None:
        """Parse what passed in the upstream's own framing, and ``data``, which did not yet."""
        try:
            self._parser.feed_data(relay.take(now))
        except httptools.HttpParserError:
            self._fail(Failure.BAD_FRAMING)
            return
        body = self._body()
        relay.parsed(body)
        done = self._message_done
        if done:
            self._release()
        else:
            self._touch()
        relay.taker.on_answer_read(body, data, done)

    def rest(self) -> tuple[bytes, bool]:
        """For a call that ends early: what passed unread, and is the client between chunks?"""
        relay, self._relay = self._relay, None
        if relay is None:
            return b"", True
        try:
            self._parser.feed_data(relay.take(0.0))
        except httptools.HttpParserError:
            return self._body(), False
        return self._body(), not self._chunk_open

    def _read_framing(self, method: str, fields: dict[str, str]) -> None:
        """What the parser does not tell: bodies that only the close ends, and HEAD."""
        if method == "HEAD":
            # The parser waits for a body that a HEAD's answer never has.
            self._message_done, self._keep_alive, self._parts = True, False, []
            return
        if "keep-alive" in fields:
            self._keep_alive_seconds = keep_alive_seconds(fields, self._keep_alive_seconds)
        self._chunked = is_chunked(fields)
        self._body_until_eof = ends_by_close(self._status, fields)

    def _switch(self, rest: bytes) -> None:
        handler = self.handler
        if handler is None or self._status != 101:
            self._fail(Failure.BAD_FRAMING)
            return
        self.tunnel, self._pending_head, self.deadline = True, False, NEVER
        handler.on_switched(self._headers, rest)

    def _release(self) -> None:
        """The answer is whole, as the parser has it."""
        keep = self._keep_alive
        if keep:
            self._reset()
        self._let_go(keep=keep)

    def _let_go(self, *, keep: bool) -> None:
        """The answer is whole: back to the pool, or close."""
        self.handler = None
        pool, transport = self._pool, self.transport
        if not self.reused and transport is not None:
            pool.connector.remember(transport)
        if keep and self._keep_alive_seconds > 0 and transport is not None:
            self.reused = True
            pool.put_back(self, self._keep_alive_seconds)
        else:
            pool.discard(self)
            if transport is not None:
                transport.close()

    def _fail(self, failure: Failure) -> None:
        handler, self.handler = self.handler, None
        self.abandon()
        if handler is not None:
            handler.on_upstream_failure(failure)

    def _touch(self) -> None:
        self.deadline = self._pool.loop.time() + (
            self._idle_seconds if self._seen_head else self._response_seconds
        )
