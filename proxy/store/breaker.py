"""A circuit breaker: a store that is away is asked seldom, and by one caller.

Owns: counting failures in a row. Must never: sleep or do I/O.
"""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """Closed until ``failures`` in a row; then open for ``rest_seconds`` at a time.

    >>> now = [0.0]
    >>> breaker = Breaker(2, 1.0, lambda: now[0])
    >>> breaker.failed(); breaker.failed(); breaker.may_try()
    False
    >>> now[0] = 1.5
    >>> breaker.may_try(), breaker.may_try()
    (True, False)
    >>> breaker.succeeded(); breaker.state
    'closed'
    """

    def __init__(self, failures: int, rest_seconds: float, monotonic: Callable[[], float]) -> None:
        self._limit = failures
        self._rest = rest_seconds
        self._monotonic = monotonic
        self._in_a_row = 0
        self._retry_at = 0.0
        self.opened = 0

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open`` (resting is over, nobody succeeded yet)."""
        if self._in_a_row < self._limit:
            return "closed"
        return "half_open" if self._monotonic() >= self._retry_at else "open"

    def may_try(self) -> bool:
        """Whether this caller may go ahead; while open, one per rest."""
        if self._in_a_row < self._limit:
            return True
        now = self._monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._rest
        return True

    def failed(self) -> None:
        """A call got no answer."""
        self._in_a_row += 1
        if self._in_a_row == self._limit:
            self.opened += 1
        if self._in_a_row >= self._limit:
            self._retry_at = self._monotonic() + self._rest

    def succeeded(self) -> None:
        """A call got an answer, whichever."""
        self._in_a_row = 0
