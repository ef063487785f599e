"""boto3 through the proxy: signed anew for AWS, and checked as AWS does it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from proxy.providers.eventstream import encode_message
from tests.e2e.sdks import PROMPT, WEATHER
from tests.rig import Proxy, Received, Upstream, json_answer, read_request, running_proxy, wait_for

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
_OWN = Credentials("AKIAPROXYOWN", "proxy+own/secret", "session-of-the-proxy")
_REGION = "eu-central-1"
_USAGE = {"inputTokens": 21, "outputTokens": 9, "cacheReadInputTokens": 40, "totalTokens": 70}


def _signature(request: Received, port: int) -> str:
    """The signature that the request should bear, by botocore's own signer."""
    method, target, _ = request.line.split(" ")
    authorization = request.header("authorization") or ""
    signed = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
    fields = {n: v for n, v in request.headers if n.lower() in signed and n.lower() != "host"}
    again = AWSRequest(method, f"http://127.0.0.1:{port}{target}", fields, request.body)
    again.context["timestamp"] = request.header("x-amz-date")
    signer = SigV4Auth(_OWN, "bedrock", _REGION)
    canonical = signer.canonical_request(again)
    return str(signer.signature(signer.string_to_sign(again, canonical), again))


def _events(*events: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(
        encode_message(
            (
                (":event-type", name),
                (":content-type", "application/json"),
                (":message-type", "event"),
            ),
            doc,
        )
        for name, doc in events
    )


_CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Rhine, Elbe, Oder."}]}},
    "stopReason": "end_turn",
    "usage": _USAGE,
    "metrics": {"latencyMs": 12},
}
_CONVERSE_STREAM = _events(
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Rhine, "}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Elbe."}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": _USAGE, "metrics": {"latencyMs": 12}}),
)
_MESSAGE = {
    "id": "msg_bdrk_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Rhine, Elbe, Oder."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 21, "cache_read_input_tokens": 40, "output_tokens": 9},
}


def _chunk(doc: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "chunk", {"bytes": base64.b64encode(json.dumps(doc).encode()).decode(), "p": "abcd"}


_INVOKE_STREAM = _events(
    _chunk({"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}}),
    _chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}),
    _chunk(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Rhine."},
        }
    ),
    _chunk(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 9},
        }
    ),
    _chunk({"type": "message_stop"}),
)


def _stream_answer(body: bytes) -> bytes:
    kind = "application/vnd.amazon.eventstream"
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode(
            "ascii"
        )
        + body
    )


class Bedrock:
    """Answers as Bedrock does, and keeps what it was sent."""

    def __init__(self) -> None:
        self.seen: list[Received] = []

    async def __call__(self, reader: Any, writer: Any) -> None:
        while (request := await read_request(reader)) is not None:
            self.seen.append(request)
            path = request.line.split(" ")[1]
            if "AWS4-HMAC-SHA256" in (request.header("authorization") or ""):
                found = (request.header("authorization") or "").rpartition("Signature=")[2]
                if found != _signature(request, self.port):
                    writer.write(
                        json_answer(
                            {"message": "The request signature we calculated does not match"},
                            403,
                            x_amzn_ErrorType="InvalidSignatureException",
                        )
                    )
                    continue
            if path.endswith("/converse"):
                writer.write(json_answer(_CONVERSE))
            elif path.endswith("/converse-stream"):
                writer.write(_stream_answer(_CONVERSE_STREAM))
            elif path.endswith("/invoke"):
                writer.write(json_answer(_MESSAGE))
            else:
                writer.write(_stream_answer(_INVOKE_STREAM))
            await writer.drain()

    port = 0


@pytest.fixture(scope="module")
def bedrock() -> Iterator[Bedrock]:
    server = Bedrock()
    with Upstream(server) as upstream:
        server.port = upstream.port
        yield server


@pytest.fixture(scope="module")
def between(bedrock: Bedrock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    url = f"http://127.0.0.1:{bedrock.port}"
    aws = {"region": _REGION}
    upstream = {"base_url": url, "wire": "bedrock", "provider": "bedrock"}
    settings = {
        "upstreams": {
            "bedrock": {**upstream, "aws": aws},
            "trusting": {**upstream, "aws": {**aws, "clients": "all"}},
            "api-key": {**upstream, "api_key": "bedrock-api-key-of-the-proxy"},
            "plain": upstream,
        },
        "pricing": {"markup": {"lab": "0.25"}},
        "mode": "observe",
    }
    environment = {
        "AWS_ACCESS_KEY_ID": _OWN.access_key,
        "AWS_SECRET_ACCESS_KEY": _OWN.secret_key,
        "AWS_SESSION_TOKEN": str(_OWN.token),
    }
    folder = tmp_path_factory.mktemp("bedrock")
    with running_proxy(folder, settings, environment=environment) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def virtual(between: Proxy) -> str:
    """A key that the proxy issued."""
    made = between.api("/api/v1/keys", "POST", {"name": "research", "project": "lab"})
    return str(made["secret"])


def client(url: str, key: str, **more: str) -> Any:
    """boto3, with the proxy's key where an AWS key would stand."""
    own = {"region_name": "us-east-1", "aws_secret_access_key": "any", **more}
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        aws_access_key_id=key,
        config=Config(retries={"max_attempts": 0, "mode": "standard"}),
        **own,
    )


def row(proxy: Proxy, agent: str) -> dict[str, Any]:
    rows = wait_for(
        lambda: [r for r in proxy.journal() if r["agent"] == agent], 30, f"a call of {agent}"
    )
    assert len(rows) == 1
    return dict(rows[0])


_MESSAGES = [{"role": "user", "content": [{"text": PROMPT}]}]
_BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": PROMPT}],
    }
)


def _ask(boto: Any, call: str) -> list[Any]:
    """One of the four calls; all that boto3 shows of the answer."""
    if call == "converse":
        answer = boto.converse(modelId=MODEL, messages=_MESSAGES)
        return [{k: v for k, v in answer.items() if k != "ResponseMetadata"}]
    if call == "converse_stream":
        return list(boto.converse_stream(modelId=MODEL, messages=_MESSAGES)["stream"])
    if call == "invoke_model":
        return [json.loads(boto.invoke_model(modelId=MODEL, body=_BODY)["body"].read())]
    events = boto.invoke_model_with_response_stream(modelId=MODEL, body=_BODY)["body"]
    return [json.loads(event["chunk"]["bytes"]) for event in events]


_CALLS = ["converse", "converse_stream", "invoke_model", "invoke_model_with_response_stream"]


@pytest.mark.parametrize("call", _CALLS)
def test_boto3_sees_no_difference(
    between: Proxy, bedrock: Bedrock, virtual: str, call: str
) -> None:
    own = {
        "region_name": _REGION,
        "aws_secret_access_key": _OWN.secret_key,
        "aws_session_token": str(_OWN.token),
    }
    direct = _ask(client(f"http://127.0.0.1:{bedrock.port}", _OWN.access_key, **own), call)
    agent = call.replace("_", "-")
    passed = _ask(client(f"{between.url}/@{agent}/bedrock", virtual), call)
    assert passed == direct
    request = bedrock.seen[-1]
    assert f"/model/{quote(MODEL, safe='')}/" in request.line
    assert f"Credential={_OWN.access_key}/" in (request.header("authorization") or "")
    assert f"/{_REGION}/bedrock/aws4_request" in (request.header("authorization") or "")
    assert request.header("x-amz-security-token") == _OWN.token
    assert virtual not in str(request.headers)
    found = row(between, agent)
    assert (found["provider"], found["model"]) == ("bedrock", MODEL)
    assert (found["input_tokens"], found["output_tokens"]) == (61, 9)
    assert found["cached_input_tokens"] == 40
    assert found["stream"] is call.endswith("stream")
    assert found["finish_reasons"] == ["end_turn"]
    assert found["project"] == "lab"
    assert found["cost_nano_usd"] > 0


def test_the_projects_markup_stands_beside_its_cost(between: Proxy, virtual: str) -> None:
    _ask(client(f"{between.url}/@marked-up/bedrock", virtual), "converse")
    spent = sum(r["cost_nano_usd"] or 0 for r in between.journal() if r["project"] == "lab")
    assert spent > 0

    def counted() -> list[dict[str, Any]]:
        rows = between.usage("project")
        return [r for r in rows if r["value"] == "lab" and r["cost_nano_usd"] >= spent]

    lab = wait_for(counted, 30, "the project's cost")[0]
    assert lab["markup_nano_usd"] == -(-lab["cost_nano_usd"] // 4)


def test_a_changed_byte_would_not_pass(bedrock: Bedrock) -> None:
    """The check that the other tests rely on does refuse what is signed otherwise."""
    other = client(f"http://127.0.0.1:{bedrock.port}", "AKIAOTHER", region_name=_REGION)
    with pytest.raises(ClientError) as caught:
        other.converse(modelId=MODEL, messages=_MESSAGES)
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"


def test_foreign_signatures_pass_unless_everyone_is_trusted(
    between: Proxy, bedrock: Bedrock
) -> None:
    with pytest.raises(ClientError):
        _ask(client(f"{between.url}/@foreign/bedrock", "AKIAFOREIGN"), "converse")
    assert "Credential=AKIAFOREIGN/" in (bedrock.seen[-1].header("authorization") or "")
    _ask(client(f"{between.url}/@trusted/trusting", "AKIAFOREIGN"), "converse")
    assert f"Credential={_OWN.access_key}/" in (bedrock.seen[-1].header("authorization") or "")


def test_without_credentials_of_its_own_a_key_of_ours_is_refused(
    between: Proxy, virtual: str
) -> None:
    with pytest.raises(ClientError) as caught:
        _ask(client(f"{between.url}/@nothing/plain", virtual), "converse")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert "upstreams.plain.aws" in caught.value.response["Error"]["Message"]


def test_bedrock_api_keys_pass_and_stand_in_for_ours(
    between: Proxy, bedrock: Bedrock, virtual: str
) -> None:
    """An API key is a Bearer; boto3 sends one over TLS alone, so here it goes by hand."""
    import urllib.request

    def ask(upstream: str, key: str) -> str | None:
        request = urllib.request.Request(
            f"{between.url}/{upstream}/model/{MODEL}/converse",
            json.dumps({"messages": _MESSAGES}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.loads(answer.read()) == _CONVERSE
        return bedrock.seen[-1].header("authorization")

    assert ask("plain", "bedrock-api-key-theirs") == "Bearer bedrock-api-key-theirs"
    assert ask("api-key", virtual) == "Bearer bedrock-api-key-of-the-proxy"
    signed = ask("bedrock", virtual)
    assert signed is not None
    assert signed.startswith(f"AWS4-HMAC-SHA256 Credential={_OWN.access_key}/")
    _ask(client(f"{between.url}/@swapped/api-key", virtual), "converse")
    assert bedrock.seen[-1].header("authorization") == "Bearer bedrock-api-key-of-the-proxy"
    assert bedrock.seen[-1].header("x-amz-date") is None


def test_no_secret_is_written(between: Proxy, virtual: str) -> None:
    for upstream in ("bedrock", "api-key"):
        _ask(client(f"{between.url}/@told-{upstream}/{upstream}", virtual), "converse")
        row(between, f"told-{upstream}")
    for path in [between.log, *between.data_dir.rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            for secret in (_OWN.secret_key, str(_OWN.token), virtual, "bedrock-api-key"):
                assert secret.encode() not in content, path


def test_aimock_converses_through_the_proxy(
    aimock: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its streams are not taken by boto3 itself (with or without a proxy), so whole answers."""
    folder = tmp_path_factory.mktemp("aimock-bedrock")
    upstream = {"base_url": aimock, "wire": "bedrock", "provider": "bedrock"}
    with running_proxy(folder, {"upstreams": {"bedrock": upstream}, "mode": "observe"}) as proxy:
        for agent, ask in (("rivers", PROMPT), ("weather", WEATHER)):
            shown = []
            tools = [
                {"toolSpec": {"name": "get_weather", "inputSchema": {"json": {"type": "object"}}}}
            ]
            for url in (aimock, f"{proxy.url}/@{agent}/bedrock"):
                answer = client(url, "AKIAANY").converse(
                    modelId=MODEL,
                    messages=[{"role": "user", "content": [{"text": ask}]}],
                    toolConfig={"tools": tools},
                )
                blocks = answer["output"]["message"]["content"]
                for block in blocks:
                    block.get("toolUse", {}).pop("toolUseId", None)
                shown.append((blocks, answer["stopReason"], answer["usage"]))
            assert shown[0] == shown[1]
            found = row(proxy, agent)
            assert (found["input_tokens"], found["output_tokens"]) == (31, 17)
            assert found["endpoint"] == "converse"
