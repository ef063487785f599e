"""A running proxy as those meet it who operate it: TLS, OTLP, imported history, logs."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme

from tests.rig import (
    ROOT,
    TOKEN,
    Proxy,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)
from tests.unit.history.test_baselines import hourly, traffic
from tests.unit.test_otel import Collector, plain

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def answering(reader: Any, writer: Any) -> None:
    while (request := await read_request(reader)) is not None:
        body = json.loads(request.body or b"{}")
        answer = chat_answer(model=body.get("model", "gpt-4o-mini"))
        writer.write(json_answer(answer, 500 if body.get("user") == "fails" else 200))
        await writer.drain()


def settings_for(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {"upstreams": {"openai": {"base_url": upstream.url}}, **more}


def call(proxy: Proxy, headers: dict[str, str] | None = None, **body: Any) -> int:
    request = urllib.request.Request(
        f"{proxy.url}/v1/chat/completions",
        data=json.dumps({"model": "gpt-4o-mini", "messages": [], **body}).encode(),
        headers={"Authorization": "Bearer sk-operations-0123456789",
                 "Content-Type": "application/json", **(headers or {})},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_both_ports_speak_tls_with_real_clients_and_take_a_renewed_certificate(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    bundle, certificate, key = (tmp_path / n for n in ("ca.pem", "tls.crt", "tls.key"))
    authority.cert_pem.write_to_path(bundle)

    def issue(days: int) -> float:
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        held = authority.issue_cert("localhost", "127.0.0.1", not_after=end)
        held.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(blob.bytes() for blob in held.cert_chain_pems))
        return end.timestamp()

    ends = issue(20)
    tls = {"certificate_file": str(certificate), "key_file": str(key)}
    context = ssl.create_default_context(cafile=str(bundle))
    with Upstream(answering) as upstream, running_proxy(
        tmp_path / "p", settings_for(upstream, server={"tls": tls, "admin_tls": tls})
    ) as proxy:  # fmt: skip

        def metrics() -> str:
            request = urllib.request.Request(
                f"https://127.0.0.1:{proxy.admin_port}/metrics",
                headers={"Authorization": f"Bearer {TOKEN}"},
            )
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return str(answer.read().decode())

        def expiry(port: str) -> float:
            name = "tokenweir_tls_certificate_expiry_timestamp_seconds"
            return next(
                float(line.split()[-1])
                for line in metrics().splitlines()
                if line.startswith(f'{name}{{port="{port}"}}')
            )

        with openai.OpenAI(
            base_url=f"https://127.0.0.1:{proxy.port}/v1",
            api_key="sk-operations-0123456789",
            http_client=openai.DefaultHttpxClient(verify=context),
        ) as client:
            done = client.chat.completions.create(model="gpt-4o-mini", messages=[])
            assert done.usage is not None
            assert done.usage.total_tokens == 18
        wait_for(lambda: "tokenweir_requests_total{" in metrics(), 30)
        assert expiry("data") == expiry("admin") == ends
        renewed = issue(90)
        wait_for(lambda: expiry("data") == renewed, 40, "the renewed certificate is told")
        shown = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-CAfile", str(bundle)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert "Verify return code: 0 (ok)" in shown.stdout
        pem = ssl.get_server_certificate(("127.0.0.1", proxy.port), ca_certs=str(bundle))
        assert pem.strip() in certificate.read_text()
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/", timeout=10)


def test_spans_join_the_callers_trace_and_metrics_arrive(tmp_path: Path) -> None:
    collector = Collector()
    otel = {"endpoint": collector.url, "interval_seconds": 0.5, "headers": {"x-team": "a"}}
    with (
        Upstream(answering) as upstream,
        running_proxy(tmp_path, settings_for(upstream, otel=otel)) as proxy,
    ):
        traced = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-tokenweir-agent": "triage"}
        assert call(proxy, traced) == 200
        assert call(proxy, {"traceparent": "not one"}) == 200
        assert call(proxy, user="fails") == 500
        wait_for(lambda: len(collector.spans) >= 3, 60, "three spans")
        wait_for(lambda: {m.name for m in collector.metrics} >= {"tokenweir.cost"}, 60)
    joined = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    assert len(joined) == 1
    assert joined[0].parent_span_id.hex() == SPAN
    told = plain(joined[0].attributes)
    assert told["gen_ai.agent.name"] == "triage"
    assert told["gen_ai.usage.input_tokens"] == 11
    assert {span.status.code for span in collector.spans} == {0, 2}
    assert {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"} <= {
        metric.name for metric in collector.metrics
    }
    assert all(held["x-team"] == "a" for held in collector.headers)
    by_request = {record["id"] for record in proxy.journal()}
    assert {plain(s.attributes)["tokenweir.request.id"] for s in collector.spans} == by_request
    collector.close()


def test_an_import_reaches_the_running_engine(tmp_path: Path) -> None:
    export = tmp_path / "spend.csv"
    begin = time.time() // 3600 * 3600 - 10 * 86400
    hourly(list(traffic("busy", begin, 10, 200, 2)), export)
    with (
        Upstream(answering) as upstream,
        running_proxy(tmp_path / "p", settings_for(upstream)) as proxy,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "import", str(export), "--data-dir",
             str(proxy.data_dir)],
            cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        wait_for(lambda: "imported_baselines_taken" in proxy.log.read_text(), 60)
        view = proxy.api("/api/v1/series/detail?by=agent&value=busy")
        assert view["view"]["state"] == "known", view
        assert call(proxy, {"x-tokenweir-agent": "busy"}) == 200


def test_log_lines_are_json_and_name_the_call(tmp_path: Path) -> None:
    async def hanging_up(reader: Any, writer: Any) -> None:
        await read_request(reader)

    with (
        Upstream(hanging_up) as upstream,
        running_proxy(
            tmp_path,
            settings_for(upstream, server={"response_headers": True}),
            arguments=("--log-json", "--verbose"),
        ) as proxy,
    ):
        assert call(proxy) == 502
        record = wait_for(proxy.journal, 30)[0]
    # After its end: a call's line is written once it is answered and recorded.
    lines = [json.loads(row) for row in proxy.log.read_text().splitlines() if row[:1] == "{"]
    about = [line for line in lines if line.get("request_id") == record["id"]]
    assert about, lines
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    assert "sk-operations" not in proxy.log.read_text()
