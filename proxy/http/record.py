"""What a call leaves behind: its usage at the end, and its record.

Owns: how the end of a call becomes one :class:`Finished`. Must never: write to a
connection, or record a call by itself.
"""

from __future__ import annotations

from detection.types import Usage
from proxy.http.answer import Answer
from proxy.http.ports import Finished, Services
from proxy.http.request import Request
from proxy.providers.base import Headers


def usage_at_end(
    answer: Answer | None, outcome: str, *, complete: bool, sent: bool
) -> Usage | None:
    """What a call used; ``None`` where the provider was never asked or never began."""
    if answer is not None:
        return answer.usage(complete=complete)
    if sent and outcome in ("client_disconnected", "cut"):
        # Sent, not answered: the provider may bill the prompt, so it is estimated.
        return Usage(source="unknown", complete=False)
    return None


def record(
    services: Services,
    request: Request,
    answer: Answer | None,
    outcome: str,
    usage: Usage | None,
    status: int,
) -> int | None:
    """Hand a finished call to the meter; its cost in nano-USD where known."""
    ctx, first = request.ctx, request.first_byte_at
    base_url = request.route.destination.base_url
    headers: Headers = {} if answer is None else answer.headers
    ttft = None if first is None else first - ctx.received_at
    latency = services.monotonic() - ctx.received_at
    # In the order of its fields: by name it takes three times as long.
    return services.meter.finish(
        Finished._make(
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
                latency,
            )
        )
    )
