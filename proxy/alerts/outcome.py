"""What became of one try to deliver.

Owns: the closed list of failure reasons and the rule of which are tried
again. Must never: carry a receiver's secrets or more of its answer than fits
a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a delivery failed. Closed, so that it may label a metric."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CLIENT_ERROR = "client_error"
    AUTHENTICATION = "authentication"
    REDIRECTED = "redirected"
    ADDRESS_REFUSED = "address_refused"
    BAD_ANSWER = "bad_answer"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"


_RETRIED = frozenset(
    {
        Reason.CONNECTION,
        Reason.TIMEOUT,
        Reason.RATE_LIMITED,
        Reason.SERVER_ERROR,
        Reason.BAD_ANSWER,
        Reason.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Delivered, or why not.

    ``retry_after_seconds`` is what the receiver asked for; ``receipt`` what
    later messages of the same incident need (a thread's id).
    """

    reason: Reason | None = None
    detail: str = ""
    retry_after_seconds: float | None = None
    receipt: Mapping[str, str] = field(default_factory=dict)

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.reason is None

    @property
    def retry(self) -> bool:
        """Whether another try may help."""
        return self.reason in _RETRIED


DELIVERED = Outcome()


def outcome_of_status(
    status: int, detail: str = "", retry_after_seconds: float | None = None
) -> Outcome:
    """What an HTTP status means for delivery.

    >>> outcome_of_status(503).retry, outcome_of_status(400).retry, outcome_of_status(204).delivered
    (True, False, True)
    """
    if 200 <= status < 300:
        return DELIVERED
    detail = f"status {status}" + (f": {detail}" if detail else "")
    if status == 429:
        reason = Reason.RATE_LIMITED
    elif status == 408:
        reason = Reason.TIMEOUT
    elif status in (401, 403):
        reason = Reason.AUTHENTICATION
    elif 300 <= status < 400:
        reason = Reason.REDIRECTED
    elif status >= 500:
        reason = Reason.SERVER_ERROR
    else:
        reason = Reason.CLIENT_ERROR
    return Outcome(reason, detail, retry_after_seconds)
