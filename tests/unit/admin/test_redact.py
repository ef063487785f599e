"""Secrets and terminal tricks never reach text that is written down."""

from __future__ import annotations

import doctest
import io
import json
from contextlib import redirect_stderr

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

import proxy.redact
from proxy.redact import (
    configure_logging,
    escape_controls,
    redact_headers,
    redact_text,
    redact_url,
    redact_value,
)

CANARIES = {
    "openai": "sk-proj-CANARYabcdefgh0123456789",
    "anthropic": "sk-ant-api03-CANARY_abcdefgh-0123456789",
    "google": "AIzaSyCANARYabcdefghijklmnopqrstu",
    "groq": "gsk_CANARYabcdefghij0123456789",
    "xai": "xai-CANARYabcdefghij0123456789",
    "aws": "AKIACANARYABCDEFGHIJ",
    "bedrock": "ABSKCANARYabcdefghij0123456789=",
    "slack": "xoxb-1234567890-CANARYabcdef",
    "github": "ghp_CANARYabcdefghij0123456789",
    "virtual": "tw-CANARYabcdefgh0123456789",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJDQU5BUlkiOjF9.CANARYsignature",
    "azure": "0123456789abcdefCANARY9876543210ab",
}


@pytest.mark.parametrize("vendor", CANARIES)
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "Authorization: Bearer {}",
        "Incorrect API key provided: {}.",
        '{{"api_key": "{}"}}',
        "GET /v1/models?alt=sse&key={}&x=1",
        "https://user:{}@proxy.test/",
        "redis://:{}@127.0.0.1:6379/0",
        "ValueError('x-api-key={}')",
        "--admin-token={}",
    ],
)
def test_credentials_go_in_every_shape(vendor: str, shape: str) -> None:
    assert CANARIES[vendor] not in redact_text(shape.format(CANARIES[vendor]))


@pytest.mark.parametrize(
    "text",
    [
        "key_0123456789ab used 1234567 input_tokens, max_tokens=4096",
        "model gpt-4o-mini-2024-07-18 of project checkout",
        "incident 0f8fad5b-d9cd-469f-a165-70867728950e opened",
        "/v1/chat/completions answered 429 in 0.123 s",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


def test_webhook_paths_are_secret() -> None:
    for url in (
        "https://hooks.slack.com/services/T000/B000/short",
        "https://discord.com/api/webhooks/1/abc",
        "https://acme.webhook.office.com/webhookb2/abc@def/IncomingWebhook/x/y",
    ):
        shown = redact_url(url)
        assert shown.endswith("[redacted]"), shown
        assert shown.startswith("https://")


def test_headers() -> None:
    shown = dict(redact_headers({"X-Api-Key": "short", "Cookie": "a=b", "X-Name": "a\x1b[1mb"}))
    assert shown == {"X-Api-Key": "[redacted]", "Cookie": "[redacted]", "X-Name": "a\\x1b[1mb"}


def test_structures_are_searched_to_their_leaves() -> None:
    found = redact_value(
        {"list": [{"url": "https://a:secretpw@h/"}], "password": "x", "input_tokens": 5, "key": "k"}
    )
    assert found == {
        "list": [{"url": "https://[redacted]@h/"}],
        "password": "[redacted]",
        "input_tokens": 5,
        "key": "k",
    }


def test_log_lines_are_one_line_each_and_clean() -> None:
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logging(json_lines=True)
        log = structlog.get_logger()
        log.warning("call failed", agent="a\n\x1b[31mfake line", header=CANARIES["openai"])
        try:
            raise ValueError(f"upstream said {CANARIES['anthropic']}\x1b[2J")
        except ValueError:
            log.exception("broken")
        structlog.reset_defaults()
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert "CANARY" not in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert json.loads(lines[0])["agent"] == "a\\n\\x1b[31mfake line"


@given(st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_never_raises_and_never_leaves_a_control_character(text: str) -> None:
    shown = escape_controls(redact_text(text))
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_docstrings() -> None:
    assert doctest.testmod(proxy.redact).failed == 0
