"""What every wire family must do, whichever it is. New families are found by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.providers import (
    FAMILIES,
    NO_FACTS,
    name_turn,
    read_request,
    recognise,
    refusal,
    response_parser,
    stream_error,
)
from proxy.providers.base import Endpoint, Refusal
from tests.wire.fixture import FOLDER, Fixture, fixtures

WIRES = sorted(FAMILIES)
KINDS = (
    "throttle",
    "budget",
    "anomaly",
    "disabled",
    "forbidden",
    "unavailable",
    "unauthenticated",
    "bad_request",
    "not_found",
    "too_large",
    "overloaded",
    "bad_gateway",
    "timeout",
    "internal",
    "a kind of tomorrow",
)
_WAITING = frozenset(("throttle", "unavailable", "overloaded", "bad_gateway", "timeout"))


def test_every_family_has_fixtures_and_every_fixture_a_family() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(WIRES)
    for fixture in fixtures():
        assert fixture.endpoint.wire == fixture.family, fixture.name
        assert fixture.content["source"].startswith("https://"), fixture.name


def test_every_family_file_is_registered() -> None:
    folder = Path(__file__).parents[2] / "proxy" / "providers"
    declared = {
        path.stem for path in folder.glob("*.py") if "\nFAMILY = Family(" in path.read_text()
    }
    assert declared == set(WIRES)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
def test_refusals(wire: str, kind: str) -> None:
    refused = Refusal(
        kind,
        "agent 'x' spent $5.02 of $5.00",
        scope="agent:x",
        limit="$5.00",
        spent="$5.02",
        retry_after_seconds=86_400.0,
    )
    answer = refusal(wire, refused)
    assert 400 <= answer.status <= 599
    text = answer.body.decode()
    assert json.loads(text)
    assert "agent 'x' spent $5.02 of $5.00" in text
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers)
    assert headers["content-type"] == "application/json"
    if kind in _WAITING:
        assert 1 <= int(headers["retry-after"]) <= 60
        assert 1 <= int(headers["retry-after-ms"]) <= 60_000
        assert "x-should-retry" not in headers
    else:
        assert headers["x-should-retry"] == "false"
        assert "retry-after" not in headers


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", ["throttle", "budget", "anomaly", "disabled"])
def test_a_familys_own_reader_understands_its_refusals(wire: str, kind: str) -> None:
    answer = refusal(wire, Refusal(kind, "no more today"))
    endpoint = Endpoint("vendor", wire, "unknown")
    parser = response_parser(endpoint, NO_FACTS, answer.status, dict(answer.headers))
    parser.feed(answer.body)
    usage = parser.close(complete=True)
    assert usage.error is not None
    assert usage.error.message == "no more today"
    assert usage.source == "unknown"


_FRAMED = ("sse", "eventstream", "chunks", "ndjson")
STREAMS = [
    f
    for f in fixtures()
    if any(kind in f.content for kind in _FRAMED)
    and f.content.get("status", 200) == 200
    and f.family != "hosted"
    and "error" not in f.content["expect"]
]


@pytest.mark.parametrize("fixture", STREAMS, ids=lambda f: f"{f.family}/{f.name}")
def test_a_stream_that_we_cut_reads_as_an_error(fixture: Fixture) -> None:
    error = stream_error(fixture.endpoint.wire, fixture.endpoint, Refusal("anomaly", "cut here"))
    body = fixture.body
    if "sse" in fixture.content or "ndjson" in fixture.content:
        end = b"\r\n\r\n" if "newline" in fixture.content else b"\n\n"
        end = b"\n" if "ndjson" in fixture.content else end
        body = body[: body.index(end) + len(end)]
    usage = fixture.read([body, error])
    assert usage.error is not None
    assert usage.error.message == "cut here"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"model":',
        b'{"model": 7, "messages": {"a": 1}, "input": 3, "contents": "x", "metadata": []}',
        b'{"messages": [null, 3, {"role": 3, "content": [null, {"type": "tool_result"}]}]}',
        b'{"messages": [{"role": "tool"}], "input": [{"type": "function_call_output"}]}',
        b"[" * 3000,
    ],
)
def test_strange_requests_are_only_not_understood(wire: str, body: bytes) -> None:
    endpoint = Endpoint("vendor", wire, "unknown")
    for content_type in ("application/json", "multipart/form-data; boundary=x", ""):
        facts = read_request(endpoint, body, content_type, b"key")
        name_turn(facts)
        assert facts.model is None or isinstance(facts.model, str)
        assert facts.fingerprint is None or len(facts.fingerprint) == 16


def test_an_unknown_path_passes_and_is_marked() -> None:
    endpoint = recognise("openai", "openai", "POST", "/v9/tomorrow", "", {})
    assert (endpoint.name, endpoint.metered) == ("unknown", True)
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": "application/json"})
    parser.feed(b'{"usage": {"input_tokens": 3, "output_tokens": 4}}')
    assert parser.close(complete=True).input_tokens == 3
