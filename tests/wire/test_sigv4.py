"""A new signature, checked against the algorithm written out from AWS's document."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
import time_machine

from proxy.providers.sigv4 import SIGNATURE_FIELDS, signature

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
        "content-type": "application/json",
        "authorization": "AWS4-HMAC-SHA256 Credential=OLD/20200101/us-east-1/bedrock/aws4_request",
        "x-amz-date": "20200101T000000Z",
        "x-amz-security-token": "old",
        "x-amzn-bedrock-trace": "ENABLED",
        "user-agent": "Boto3/1.44",
        "x-tokenweir-agent": "support",
    }
    headers = signature("POST", _URL, sent, body, keys, "eu-central-1")
    authorization = headers["authorization"]
    assert authorization.split("Signature=")[1] == _expected({**sent, **headers}, body, keys)
    assert "Credential=AKIDEXAMPLE/20260921/eu-central-1/bedrock/" in authorization
    signed = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amzn-bedrock-trace", "content-type"} <= set(signed)
    assert not {"user-agent", "x-tokenweir-agent"} & set(signed)
    assert headers.get("x-amz-security-token") == keys.token
    assert set(headers) <= SIGNATURE_FIELDS
    assert "OLD" not in str(headers)
    assert keys.secret_key not in str(headers)
