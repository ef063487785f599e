"""What a call leaves behind: its usage at the end, and what is told of it.

Owns: how the end of a call becomes one :class:`Finished`. Must never: write to a
connection, or record a call by itself.
"""

from __future__ import annotations

from detection.types import Usage
from proxy.http.answer import Answer
from proxy.http.ports import Finished
from proxy.http.request import Request
from proxy.providers.base import Headers

_new = tuple.__new__


def unanswered(outcome: str) -> Usage | None:
    """What a call used that was sent and not answered; ``None`` where the provider never began."""
    if outcome in ("client_disconnected", "cut"):
        # The provider may bill the prompt, so it is estimated.
        return Usage(source="unknown", complete=False)
    return None


def finished(
    request: Request,
    answer: Answer | None,
    outcome: str,
    usage: Usage | None,
    status: int,
    now: float,
) -> Finished:
    """A call that ended, at ``now`` in monotonic seconds."""
    ctx, first = request.ctx, request.first_byte_at
    base_url = request.template.route.destination.base_url
    headers: Headers = {} if answer is None else answer.headers
    ttft = None if first is None else first - ctx.received_at
    # In the order of its fields: by name it takes three times as long.
    return _new(
        Finished,
        (
            ctx,
            request.decision,
            status,
            usage,
            outcome,
            base_url,
            headers,
            request.model_sent,
            ttft,
            now - ctx.received_at,
        ),
    )
