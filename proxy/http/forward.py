"""The pump: one exchange between a client and an upstream.

Owns: the order of things in a call, from its head to its record: admit, send,
relay, count, and only then let the client see the end. Must never: hold a body
whole that it need not read, change a byte that it need not change, or give a
broken answer a clean end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from proxy.gate_decision import Decision
from proxy.http.answer import Answer
from proxy.http.call import Call
from proxy.http.errors import RefusedError
from proxy.http.failures import Failure
from proxy.http.headers import RawHeaders, Scanned, scan
from proxy.http.request import (
    read_body,
    understand,
    upstream_body,
    upstream_head,
)
from proxy.http.upstream import UpstreamConnection
from proxy.http.websocket import Tunnel, switching_head
from proxy.providers import name_turn

_HOLD_BYTES = 262_144
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS"))


class Exchange(Call):
    """One call. Its methods are called by the client's and the upstream's connection."""

    __slots__ = ()

    # -- from the client ---------------------------------------------------------

    def start(self) -> None:
        """The head is here, and it is this call's turn."""
        services = self.services
        try:
            request = understand(services, self.head, self._client.peer, services.monotonic())
        except RefusedError as refused:
            services.runtime.rejected[refused.refusal.kind] += 1
            self._done = True
            self._refuse(refused.refusal)
            return
        self.request = request
        self.ctx = request.ctx
        upload = self.upload
        if upload.declared is not None and upload.declared > services.max_body_bytes:
            self._too_large()
            return
        if "expect" in self.head.headers and "100" in self.head.headers["expect"]:
            self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._begun = True
        services.running.add(self)
        services.runtime.inflight += 1
        self._client.resume()
        caller = request.caller
        if caller is not None and caller.refusal is not None:
            read_body(services, request, b"")
            self._turn_away(caller.refusal, caller.refusal.kind)
        elif not (request.template.inspects_body or request.template.signs):
            upload.streaming = not upload.done
            self._dispatch()
        elif upload.done:
            self._dispatch()

    def on_body(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self._done:
            return
        upload, limits = self.upload, self.services.settings
        upload.received += len(data)
        if upload.received > limits.max_body_bytes:
            self._too_large()
            return
        if self._connection is not None:
            upload.send(self._connection, data)
            return
        upload.hold(data)
        if self.request is not None and not self._dispatched:
            if upload.enough(limits.inspect_body_bytes):
                upload.streaming = True
                self._dispatch()
        elif upload.received > _HOLD_BYTES:
            self._client.pause()

    def on_body_done(self) -> None:
        """The request's body is whole."""
        self.upload.done = True
        if self._done or self.request is None:
            return
        if not self._dispatched:
            self._dispatch()
        elif self._connection is not None:
            self.upload.end(self._connection)

    @property
    def awaits_switch(self) -> bool:
        """Did the client ask for a WebSocket that is not there yet?"""
        return self.request is not None and self.head.wants_websocket and not self.started

    def client_gone(self) -> None:
        """The client hung up."""
        if self._done or self.request is None:
            self._done = True
            return
        self.services.runtime.client_aborts += 1
        self._drop_upstream()
        self._settle("client_disconnected", complete=False)
        self._end()

    def client_paused(self) -> None:
        """The client reads slowly: so do we."""
        if self._connection is not None:
            self._connection.pause()

    def client_resumed(self) -> None:
        """The client reads again."""
        if self._connection is not None:
            self._connection.resume()

    # -- admission ---------------------------------------------------------------

    def _dispatch(self) -> None:
        """Everything that is looked into is here: decide, and ask for a connection."""
        began = time.perf_counter()
        self._dispatched = True
        services, request = self.services, self.request
        if request is None:
            return
        upload = self.upload
        body = upload.held()
        read_body(services, request, body)
        decision = services.gate.admit(request.ctx)
        services.runtime.overhead_seconds.observe(time.perf_counter() - began)
        if decision.kind == "wait":
            services.gate.wait(request.ctx, decision, self._decided_later)
        else:
            self._decided(decision, body)

    def _decided_later(self, decision: Decision) -> None:
        try:
            self._decided(decision, self.upload.held())
        except Exception as error:
            self.broke(error)

    def _decided(self, decision: Decision, body: bytes) -> None:
        """Admission has answered; ``body`` is what is held."""
        request = self.request
        if request is None:
            return
        if self._done:
            self.services.gate.drop(decision)  # the client hung up while a share was fetched
            return
        request.decision = decision
        if decision.refusal is not None:
            self._turn_away(decision.refusal, decision.kind, decision.headers)
            return
        upload = self.upload
        self._path = request.template.route.path
        if not upload.streaming:
            self._path, body = upstream_body(request, body, decision.model)
        upload.settle_framing(body)
        self._acquire()

    def _acquire(self) -> None:
        request = self.request
        if request is None:
            return
        template = request.template
        pool = template.pool
        if pool is None or pool.retired:
            pool = template.pool = self.services.pools.of(template.route.destination)
        self._pool = pool
        connection = pool.acquire(self)
        if connection is not None:
            self.on_connected(connection)

    # -- from the upstream -------------------------------------------------------

    def on_connected(self, connection: UpstreamConnection) -> None:
        """A connection is ours: send what there is."""
        try:
            self._send_on(connection)
        except Exception as error:
            connection.abandon()
            self._connection = None
            self.broke(error)

    def _send_on(self, connection: UpstreamConnection) -> None:
        request = self.request
        if self._done or request is None:
            connection.abandon()
            return
        self._connection = connection
        upload = self.upload
        try:
            signed = request.template.signs and not upload.streaming
            body = upload.held() if signed else None
            head = upstream_head(self.services, request, self._path, upload.length, body)
        except RefusedError as refused:
            connection.abandon()
            self._connection = None
            self._turn_away(refused.refusal, refused.refusal.kind)
            return
        first = upload.first(keep=self.method in _IDEMPOTENT)
        connection.start(self, head + first, upload.done)
        name_turn(request.facts)
        if not upload.done:
            self._client.resume()

    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None:
        """The answer begins."""
        request = self.request
        if request is None:
            return
        answer = self._answer = Answer(request, status, headers)
        extra = [] if request.decision is None else list(request.decision.headers)
        if self.services.response_headers:
            extra.append(("x-tokenweir-request-id", request.ctx.id))
        answer.begin(reason, extra, close=self._must_close())

    def on_answer_data(
        self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """A piece of the answer, perhaps the last."""
        answer = self._answer
        if self._done or answer is None:
            return
        request = self.request
        if data and request is not None and request.first_byte_at is None:
            monotonic = self.services.monotonic
            request.first_byte_at = monotonic()
        if not done:
            if not (self.services.response_headers and answer.keep(data)):
                out = answer.pass_on(data, done, trailers)
                self.started = True
                if out:
                    self._client.send(out)
            if data:
                answer.parser.feed(data)
                self._progress(answer)
            return
        self._connection = None
        if data:
            answer.parser.feed(data)
        # Counted before the client sees the end, so that no call that it saw whole is lost.
        cost_nano_usd = self._settle("", complete=True)
        if not self.started and cost_nano_usd is not None and self.services.response_headers:
            answer.add("x-tokenweir-cost-usd", f"{cost_nano_usd / 1e9:.9f}")
        out = answer.pass_on(data, done, trailers)
        self.started = True
        self._client.send(out)
        self._finish(reusable=not answer.closes)

    def raw_taker(self) -> Exchange | None:
        """May the answer, which has begun, go out in the upstream's own framing?"""
        answer, request = self._answer, self.request
        if answer is None or request is None or request.first_byte_at is None:
            return None
        return self if answer.takes_raw else None

    def raw_out(self) -> Callable[[bytes], None]:
        """Where framed bytes of the answer go; they are read later."""
        return self._client.send

    def on_answer_read(self, body: bytes, raw: bytes, done: bool) -> None:
        """What passed before, read now, and the framed bytes that came last."""
        answer = self._answer
        if self._done or answer is None:
            return
        if done:
            self._connection = None
            answer.parser.feed(body)
            # Counted before the client sees the end, so that no call that it saw whole is lost.
            self._settle("", complete=True)
            self._client.send(raw)
            self._finish(reusable=not answer.closes)
            return
        self._client.send(raw)
        answer.parser.feed(body)
        self._progress(answer)

    def on_switched(self, headers: RawHeaders, rest: bytes) -> None:
        """The upstream speaks WebSocket from here on."""
        request, connection = self.request, self._connection
        if request is None or connection is None:
            return
        self.started = True
        self._client.send(switching_head(headers))
        self._tunnel = Tunnel(
            request.endpoint,
            self._client,
            connection,
            scan(headers)[0],
            max_message_bytes=self.services.settings.max_websocket_message_bytes,
            on_end=self._tunnel_ended,
        )
        connection.handler = self._tunnel
        self._client.become_tunnel(self._tunnel)
        if rest:
            self._tunnel.on_answer_data(rest, False, ())

    def on_upstream_failure(self, failure: Failure) -> None:
        """The upstream gave no whole answer."""
        self._read_rest()
        self._connection = None
        request = self.request
        if self._done or request is None:
            return
        if failure is Failure.STALE and not self._retried and self.method in _IDEMPOTENT:
            self._retried = True
            self._acquire()
            return
        self.services.runtime.upstream_failures[failure.value] += 1
        outcome = f"upstream_{failure.value}"
        if self.started:
            self._settle(outcome, complete=False)
            self._end()
            # Never a clean end: a chunked or counted body stops short, anything else is reset.
            if self._answer is None or self._answer.close_delimited:
                self._client.abort()
            else:
                self._client.close_after()
            return
        refusal = failure.refusal(request.ctx.upstream, request.route.destination.origin.authority)
        self._settle(outcome, complete=False, status=failure.status)
        self._refuse(refusal)

    def on_upstream_paused(self) -> None:
        """The upstream takes the request slowly."""
        self._client.pause()

    def on_upstream_resumed(self) -> None:
        """The upstream takes more."""
        self._client.resume()
