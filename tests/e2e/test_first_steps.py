"""Each line of the first-steps panel and the welcome leads a call where it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conftest import Recorder
from tests.rig import ROOT, Proxy, Upstream, running_proxy, wait_for

SCRIPT = ROOT / "proxy" / "admin" / "pages" / "js" / "snippets.js"
CHAT = {"model": "m-1", "messages": [{"role": "user", "content": "hello"}]}
GEMINI = {"contents": [{"parts": [{"text": "hello"}]}]}
BEDROCK = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}

#: What each client adds to the address of its line, what it sends, and whom that reaches.
CLIENTS = {
    "openai": ("/chat/completions", CHAT, "openai"),
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 9}, "anthropic"),
    "google-genai": ("/v1beta/models/m-1:generateContent", GEMINI, "gemini"),
    "mistralai": ("/v1/chat/completions", CHAT, "mistral"),
    "boto3 (Bedrock)": ("/model/m-1/converse", BEDROCK, "bedrock"),
    "Azure": ("/openai/deployments/m-1/chat/completions?api-version=2024-10-21", CHAT, "azure"),
    "LangChain": ("/chat/completions", CHAT, "openai"),
    "Claude Code": ("/v1/messages?beta=true", {**CHAT, "max_tokens": 9}, "anthropic"),
    "Codex": ("/responses", {"model": "m-1", "input": "hello"}, "openai"),
    "Gemini CLI": ("/v1beta/models/m-1:streamGenerateContent?alt=sse", GEMINI, "gemini"),
    "curl": ("", CHAT, "openai"),
}


@pytest.fixture(scope="module")
def reached(recorder: Recorder, tmp_path_factory) -> Iterator[Proxy]:
    """A proxy whose every provider is the recording upstream."""
    with Upstream(recorder) as upstream:
        upstreams = {
            name: {"base_url": f"{upstream.url}/{name}", "wire": name}
            for name in ("openai", "anthropic", "gemini", "mistral", "bedrock", "azure")
        }
        with running_proxy(tmp_path_factory.mktemp("steps"), {"upstreams": upstreams}) as proxy:
            yield proxy


def shown(address: str, agent: str) -> dict[str, str]:
    """The panel's lines by client, from the page's own script."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here: apt-get install nodejs")
    code = SCRIPT.read_text() + f"\nconsole.log(JSON.stringify(steps({address!r}, {agent!r})))"
    done = subprocess.run(
        [node, "--input-type=module", "-e", code], capture_output=True, text=True, check=True
    )
    return {step["name"]: step["lines"] for step in json.loads(done.stdout)}


def send(url: str, body: dict) -> int:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "x-api-key": "k-1"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_every_client_has_a_line(reached: Proxy) -> None:
    assert shown(reached.url, "a").keys() == CLIENTS.keys()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("agent", ["my-agent", ""])
def test_the_line_leads_to_the_provider(client: str, agent: str, reached: Proxy, recorder) -> None:
    suffix, body, provider = CLIENTS[client]
    address = re.findall(r"http://[^\s\"\\]+", shown(reached.url, agent)[client])[0]
    before = len(reached.journal())
    got = len(recorder.requests)
    send(address + suffix, body)
    wait_for(lambda: len(reached.journal()) > before, 30, "the call in the journal")
    call = reached.journal()[-1]
    assert call["provider"] == provider
    assert call["model"] == "m-1"
    if agent:
        assert call["agent"] == agent
    assert len(recorder.requests) == got + 1
    assert recorder.requests[-1].line.split(" ")[1].startswith(f"/{provider}/")


def test_the_welcome_shows_the_same_addresses(reached: Proxy) -> None:
    welcome = reached.log.read_text()
    lines = "\n".join(shown(reached.url, "my-agent").values())
    for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        (printed,) = re.findall(rf"{variable}=(\S+)", welcome)
        assert f"{variable}={printed}" in lines
