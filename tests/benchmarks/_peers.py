"""The proxies that the throughput benchmark compares: how each is set up and reached.

Each stands in front of the same upstream, with one worker on one core. What is not
installed is left out and named. LiteLLM and Portkey are looked for under
``$TOKENWEIR_BENCH_PEERS`` (by default ``~/.cache/tokenweir-bench``), where
``tests/benchmarks/peers.sh`` puts them.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("TOKENWEIR_BENCH_PEERS", Path.home() / ".cache/tokenweir-bench"))
TOKEN = "bench-0123456789abcdef"


@dataclass
class Peer:
    """One proxy under test. ``command`` is run in ``folder``."""

    name: str
    command: list[str]
    port: int
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    tls: bool = False
    kills_store: bool = False


def nginx(folder: Path, port: int, upstream: int, cert: Path | None = None) -> Peer | None:
    """nginx as a plain reverse proxy that keeps upstream connections and buffers nothing."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return None
    tls = f"ssl_certificate {cert}; ssl_certificate_key {cert};" if cert else ""
    paths = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;\n"
        "events { worker_connections 9000; }\n"
        f"http {{ access_log off; {paths}\n"
        f" upstream u {{ server 127.0.0.1:{upstream}; keepalive 1024;\n"
        "  keepalive_requests 1000000000; }\n"
        f" server {{ listen 127.0.0.1:{port}{' ssl' if cert else ''} backlog=4096; {tls}\n"
        "  keepalive_requests 1000000000; client_max_body_size 0;\n"
        "  location / { proxy_pass http://u; proxy_http_version 1.1; proxy_buffering off;\n"
        '   proxy_request_buffering off; proxy_set_header Connection ""; } } }\n'
    )
    name = "nginx" if cert is None else "nginx, TLS"
    return Peer(name, [binary, "-c", str(folder / "nginx.conf")], port, tls=cert is not None)


def haproxy(folder: Path, port: int, upstream: int) -> Peer | None:
    """haproxy with one thread."""
    binary = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if binary is None:
        return None
    (folder / "haproxy.cfg").write_text(
        "global\n nbthread 1\n maxconn 8000\n"
        "defaults\n mode http\n option http-no-delay\n option http-keep-alive\n"
        " http-reuse always\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
        f"backend b\n server s 127.0.0.1:{upstream}\n"
    )
    return Peer("haproxy", [binary, "-db", "-f", str(folder / "haproxy.cfg")], port)


def tokenweir(
    folder: Path,
    port: int,
    upstream: int,
    *,
    name: str = "tokenweir",
    cert: Path | None = None,
    upstream_ca: Path | None = None,
    kills_store: bool = False,
    python: str = sys.executable,
) -> Peer:
    """Ourselves with everything on: 100 limits, a budget, detection, ledger, journal, store."""
    scheme = "https" if upstream_ca else "http"
    ca = f", ca_file: {upstream_ca}" if upstream_ca else ""
    lines = [
        f"upstreams: {{openai: {{base_url: '{scheme}://127.0.0.1:{upstream}', "
        f"max_connections: 20000{ca}}}}}",
        "budgets:",
        "  - {name: team, by: [project], amount_usd: 1000000, per: month}",
        "limits:",
        "  - {name: everyone, by: [key], requests: 1000000000, per: day}",
    ]
    lines += [
        f"  - {{name: limit-{i}, by: [key], match: {{key: [key_{i:012x}]}}, requests: 9, per: day}}"
        for i in range(99)
    ]
    if cert:
        lines += [f"server: {{tls: {{certificate_file: {cert}, key_file: {cert}}}}}"]
    (folder / "tokenweir.yaml").write_text("\n".join(lines) + "\n")
    command = [python, "-m", "proxy", "serve", "--config", str(folder / "tokenweir.yaml")]
    command += ["--port", str(port), "--admin-port", str(port + 1), "--data-dir", f"{folder}/data"]
    environment = {"TOKENWEIR_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    return Peer(
        name,
        command,
        port,
        environment=environment,
        tls=cert is not None,
        kills_store=kills_store,
    )


def litellm(folder: Path, port: int, upstream: int) -> Peer | None:
    """LiteLLM's proxy with one worker."""
    binary = HOME / "litellm/bin/litellm"
    if not binary.exists():
        return None
    (folder / "litellm.yaml").write_text(
        "model_list:\n- model_name: gpt-4o-mini\n  litellm_params: {model: openai/gpt-4o-mini, "
        f"api_key: sk-x, api_base: 'http://127.0.0.1:{upstream}/v1'}}\n"
    )
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    command = [str(binary), "--config", str(folder / "litellm.yaml"), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--num_workers", "1"]
    return Peer("LiteLLM", command, port, environment=environment)


def portkey(folder: Path, port: int, upstream: int) -> Peer | None:
    """Portkey's gateway."""
    script = HOME / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    node = shutil.which("node")
    if node is None or not script.exists():
        return None
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    return Peer("Portkey", [node, str(script), f"--port={port}"], port, headers=headers)
