"""Calls in a recorder of root causes, each added as the ledger adds the sums of many."""

from __future__ import annotations

from detection.contrib import Recorder
from detection.types import Observation
from proxy.ledger_totals import summed


def record(recorder: Recorder, call: Observation) -> None:
    """Count one call."""
    recorder.add(call.ts, call, summed([call]))
