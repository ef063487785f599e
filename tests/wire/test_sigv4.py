"""A new signature, checked against the algorithm written out from AWS's document."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
import time_machine

from proxy.providers.sigv4 import resign

_WHEN = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
_URL = (
    "https://bedrock-runtime.eu-central-1.amazonaws.com"
    "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
)


@dataclass(frozen=True)
class Keys:
    access_key: str = "AKIDEXAMPLE"
    secret_key: str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    token: str | None = None


def _expected(headers: dict[str, str], body: bytes, keys: Keys) -> str:
    signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    parts = urlsplit(_URL)
    values = {**headers, "host": parts.netloc}
    canonical = "\n".join(
        [
            "POST",
            quote(parts.path, safe="/~-_."),
            "",
            *[f"{name}:{values[name]}" for name in signed.split(";")],
            "",
            signed,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = "20260921/eu-central-1/bedrock/aws4_request"
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            "20260921T141320Z",
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = b"AWS4" + keys.secret_key.encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


@pytest.mark.parametrize("keys", [Keys(), Keys(token="session-token")])
@time_machine.travel(_WHEN, tick=False)
def test_the_signature_is_aws_own(keys: Keys) -> None:
    body = b'{"messages":[]}'
    sent = {
        "Content-Type": "application/json",
        "Host": "127.0.0.1:8787",
        "Authorization": "AWS4-HMAC-SHA256 Credential=OLD/20200101/us-east-1/bedrock/aws4_request",
        "X-Amz-Date": "20200101T000000Z",
        "X-Amz-Security-Token": "old",
        "User-Agent": "Boto3/1.44",
        "x-tokenweir-agent": "support",
    }
    headers = resign("POST", _URL, sent, body, keys, "eu-central-1")
    assert headers["authorization"].split("Signature=")[1] == _expected(headers, body, keys)
    assert "Credential=AKIDEXAMPLE/20260921/eu-central-1/bedrock/" in headers["authorization"]
    assert "host" in headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    assert headers.get("x-amz-security-token") == keys.token
    assert headers["user-agent"] == "Boto3/1.44"
    assert headers["x-tokenweir-agent"] == "support"
    assert "OLD" not in str(headers)
    assert keys.secret_key not in str(headers)
    assert "host" not in headers
