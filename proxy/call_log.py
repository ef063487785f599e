"""Finished calls in the log: each one where asked for, else those that failed.

Owns: which calls get a line, what is in it, and how many lines a second. Must
never: log a name that may be a person's, or slow a call that went well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from detection.types import Observation

_MOST_A_SECOND: Final = 20


class CallLog:
    """A listener of the meter. Failed calls at level warning, all others at debug.

    An outage fails thousands of calls alike: beyond 20 lines a second they are counted,
    and the next line says how many were left out.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._second = 0
        self._lines = 0
        self._left_out = 0
        self._log = structlog.get_logger("tokenweir.calls")
        self._debug: bool = self._log.is_enabled_for(10)

    def observe(self, call: Observation) -> None:
        """Log one call."""
        failed = call[14] is not None
        if not failed and not self._debug:
            return
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if failed and self._lines >= _MOST_A_SECOND:
            self._left_out += 1
            return
        facts: dict[str, object] = {
            "request_id": call.id,
            "upstream": call.upstream,
            "endpoint": call.endpoint,
            "model": call.model,
            "status": call.status,
            "action": call.action,
            "agent": call.agent,
            "latency_seconds": call.latency_seconds,
        }
        if call.trace is not None:
            facts["trace_id"] = call.trace[3:35]
        if not failed:
            self._log.debug("call", **facts)
            return
        self._lines += 1
        if self._left_out:
            facts["left_out"], self._left_out = self._left_out, 0
        self._log.warning("call_failed", error_type=call.error_type, **facts)
