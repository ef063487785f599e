"""What of a call is logged, and that an outage does not flood the log."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import structlog

from detection.types import Observation
from proxy.call_log import CallLog
from proxy.redact import configure_logging

CALL = Observation(
    ts=1.0, id="r-1", key="key_1", agent="triage", user="alice@example.com", provider="openai",
    upstream="openai", endpoint="chat_completions", model="m", status=200, action="allow",
    trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)  # fmt: skip
FAILED = CALL._replace(status=502, error_type="connection_reset")


@pytest.fixture(autouse=True)
def configured_anew() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def logged(level: int, *calls: Observation, now: list[float] | None = None) -> list[dict]:
    out = io.StringIO()
    times = iter(now or [0.0] * len(calls))
    with redirect_stderr(out):
        configure_logging(json_lines=True, level=level)
        log = CallLog(lambda: next(times))
        for call in calls:
            log.observe(call)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_failed_call_has_a_line_with_its_ids_and_no_person() -> None:
    [line] = logged(20, CALL, FAILED, now=[0.0])
    assert line["event"] == "call_failed"
    assert line["level"] == "warning"
    assert line["request_id"] == "r-1"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["error_type"] == "connection_reset"
    assert "alice" not in json.dumps(line)


def test_every_call_has_one_where_asked_for() -> None:
    assert [line["event"] for line in logged(10, CALL, FAILED, CALL)] == [
        "call", "call_failed", "call",
    ]  # fmt: skip


def test_an_outage_is_counted_rather_than_told_call_by_call() -> None:
    lines = logged(20, *[FAILED] * 501, now=[5.0] * 500 + [6.0])
    assert len(lines) == 21
    assert lines[-1]["left_out"] == 480
    assert "left_out" not in lines[0]


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_keeps_its_lines_and_forges_none(json_lines: bool) -> None:
    out = io.StringIO()
    with redirect_stderr(out):
        configure_logging(json_lines=json_lines)
        try:
            raise ValueError('first\n{"event": "forged"}\nsk-abcdefghijklmnopqrstuvwxyz012345')
        except ValueError:
            structlog.get_logger("x").exception("broken")
    text = out.getvalue()
    shown = json.loads(text)["exception"] if json_lines else text
    assert "\n  Traceback (most recent call last):\n" in f"\n{shown}"
    assert "\n  ValueError: first\n" in shown
    assert "sk-abcdefghij" not in text
    assert not any(line.startswith('{"event": "forged') for line in text.splitlines())
