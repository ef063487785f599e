"""The state of one call, and the ways in which it can end.

Owns: that a call which began is counted as running until it ends, recorded once and
answered once. Must never: decide whether a call may pass, or read its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from detection.types import Observation, Usage
from proxy.context import RequestContext
from proxy.http import errors
from proxy.http.answer import Answer
from proxy.http.ports import Downstream, Finished, Services
from proxy.http.record import finished, unanswered
from proxy.http.request import Head, Request
from proxy.http.upload import Upload
from proxy.http.upstream import UpstreamConnection
from proxy.http.websocket import Tunnel
from proxy.providers import name_turn
from proxy.providers.base import Refusal

_log = structlog.get_logger("tokenweir.http")
_BROKE = Refusal("internal", "the proxy failed on this call; its log says where")


class Line(Protocol):
    """Where a call waits for a connection."""

    def cancel(self, handler: Any, /) -> None: ...


class Call:
    """One call. ``length`` is the declared length of its body in bytes."""

    __slots__ = (
        "_answer",
        "_begun",
        "_client",
        "_connection",
        "_dispatched",
        "_done",
        "_path",
        "_pool",
        "_recorded",
        "_retried",
        "_tunnel",
        "ctx",
        "head",
        "method",
        "request",
        "services",
        "started",
        "upload",
    )

    def __init__(
        self,
        services: Services,
        client: Downstream,
        head: Head,
        length: int | None,
        body: bytes | None = None,
    ) -> None:
        self.services = services
        self.head = head
        self.method = head.method
        self.request: Request | None = None
        self.ctx: RequestContext | None = None
        self._client = client
        self.upload = Upload(head, length, body)
        self._dispatched = False
        self._connection: UpstreamConnection | None = None
        self._pool: Line | None = None
        self._path = ""
        self._answer: Answer | None = None
        self._recorded: tuple[Finished, Observation] | None = None
        self.started = False
        self._done = False
        self._retried = False
        self._begun = False
        self._tunnel: Tunnel | None = None

    def cut(self, refusal: Refusal) -> None:
        """End this call from outside: it belongs to something that was blocked."""
        request = self.request
        if self._done or request is None:
            return
        self.services.runtime.streams_cut += 1
        if self._tunnel is not None:
            self._tunnel.cut(refusal)
            return
        between = self._drop_upstream()
        if not self.started:
            self._settle("cut", complete=False, status=429)
            self._refuse(refusal)
            return
        self._settle("cut", complete=False)
        answer = self._answer
        last = answer.last_words(refusal) if answer is not None and between else None
        if last is None:
            self._end()
            self._client.abort()
        else:
            self._client.send(last)
            self._finish(reusable=False)

    def broke(self, error: BaseException) -> None:
        """End this call: the proxy itself failed on it, and must not leave it hanging."""
        ctx = self.ctx
        _log.error("call_broke", request_id=ctx.id if ctx is not None else None, exc_info=error)
        self.services.runtime.rejected["internal"] += 1
        try:
            self._drop_upstream()
            if not self.started:
                self._settle("internal_error", complete=False, status=500)
                self._refuse(_BROKE)
                return
            self._settle("internal_error", complete=False)
        except Exception:
            _log.exception("call_broke_again")
        self._done = True
        self._end()
        self._client.abort()

    def _must_close(self) -> bool:
        request, answer = self.request, self._answer
        return (
            request is None
            or request.template.must_close
            or not self.upload.done
            or (answer is not None and answer.close_delimited)
        )

    def _progress(self, answer: Answer) -> None:
        """More of a stream: one that passes its limit is cut."""
        decision = self.request.decision if self.request is not None else None
        if decision is not None:
            refusal = self.services.gate.progress(decision, answer.parser.output_bytes)
            if refusal is not None:
                self.cut(refusal)

    def _settle(self, outcome: str, *, complete: bool, status: int | None = None) -> int | None:
        """Record the call with what was read of its answer; its cost where known."""
        answer = self._answer
        if answer is not None:
            usage: Usage | None = answer.parser.close(complete=complete)
        else:
            usage = unanswered(outcome) if self._dispatched else None
        if outcome == "client_disconnected" and usage is not None and usage.complete:
            outcome = ""  # SDKs hang up at a stream's last event, before the transport's own end
        status = status or (answer.status if answer is not None else 499)
        return self._record(outcome, usage, status)

    def _record(self, outcome: str, usage: Usage | None, status: int) -> int | None:
        if self._done or self.request is None:
            return None
        self._done = True
        services, monotonic = self.services, self.services.monotonic
        name_turn(self.request.facts)  # where it was never sent
        call = finished(self.request, self._answer, outcome, usage, status, monotonic())
        observation = services.meter.record(call)
        if observation is None:
            return None
        self._recorded = (call, observation)
        return observation[20]  # cost_nano_usd: by place, as in the other steps of every call

    def _tunnel_ended(self, usage: Usage, outcome: str) -> None:
        self._connection = None
        self._record(outcome, usage, 101)
        self._end()

    def _drop_upstream(self) -> bool:
        """Let go of the upstream; is the client between two chunks of the answer?"""
        between = True
        if self._connection is not None:
            between = self._read_rest()
            self._connection.abandon()
            self._connection = None
        elif self._pool is not None:
            self._pool.cancel(self)
        return between

    def _read_rest(self) -> bool:
        """Read what passed unread."""
        if self._connection is None or self._answer is None:
            return True
        body, between = self._connection.rest()
        self._answer.parser.feed(body)
        return between

    def _too_large(self) -> None:
        self._drop_upstream()
        limit = self.services.settings.max_body_bytes
        refusal = Refusal("too_large", f"the request's body is over server.max_body_bytes={limit}")
        self.services.runtime.rejected["too_large"] += 1
        if self.started:
            self._end()
            self._client.abort()
            return
        self._done = True
        self._refuse(refusal)

    def _turn_away(
        self, refusal: Refusal, outcome: str, extra: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Refuse a call that was never sent, and record it."""
        wire = self.ctx.wire if self.ctx is not None else "openai"
        self._record(outcome, None, errors.status_of(wire, refusal))
        self._refuse(refusal, extra)

    def _refuse(self, refusal: Refusal, extra: Sequence[tuple[str, str]] = ()) -> None:
        request = self.request
        close = self._must_close()
        wire = request.ctx.wire if request is not None else "openai"
        data = errors.answer(
            wire, refusal, extra=extra, close=close, with_body=self.method != "HEAD"
        )
        self._client.send(data)
        self.started = True
        self._finish(reusable=not close)

    def _finish(self, *, reusable: bool) -> None:
        self._end()
        self._client.finished(self, reusable=reusable)

    def _end(self) -> None:
        services, request = self.services, self.request
        if self._begun and request is not None:
            self._begun = False
            services.running.discard(self)
            services.runtime.inflight -= 1
        recorded, self._recorded = self._recorded, None
        if recorded is not None:
            call, observation = recorded
            services.meter.judge(call, observation)
