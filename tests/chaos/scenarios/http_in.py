"""Requests that are wrong, hostile or slow (rows 1-25), beside traffic that is sound.

Owns: what each must be answered, and that nothing of it reached an upstream.
Must never: repeat the raw requests, which `tests/chaos/test_http_in.py` holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import subprocess
import time
from pathlib import Path

from tests.chaos.lab import Lab, chat, fault
from tests.chaos.scenarios.bodies import memory_bytes
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk
from tests.chaos.test_http_in import BODY, LENGTH, POST, REFUSED
from tests.rig import Raw, Received, wait_for

MEGABYTE = 1 << 20


def make_shared(folder: Path) -> Lab:
    """The group's lab: with short deadlines."""
    deadlines = {"header_timeout_seconds": 1.0, "body_timeout_seconds": 1.0}
    return Lab(folder, {"server": {**deadlines, "idle_timeout_seconds": 2.0}})


NAMES = {
    1: "Content-Length with Transfer-Encoding",
    2: "two Content-Lengths",
    3: "Content-Length: +5",
    4: "an odd Transfer-Encoding",
    5: "HTTP/1.0 with chunks",
    6: "two Hosts, or none",
    7: "a Host with a path in it",
    8: "folded lines, bare LF, NUL, space before colon",
    9: "LF in a chunk extension, overflowing chunk size",
    10: "an oversize field, 140 fields",
    13: "`..` segments, plain and encoded",
    15: "an HTTP/2.0 request line",
    16: "CONNECT",
    23: "CR and LF in an agent's name",
}


def refused(row: int, name: str) -> None:
    cases = [case for case in REFUSED if case.startswith(f"row{row}-")]
    assert cases, f"no raw request for row {row}"

    @fault(row, name, tries=3)
    def run(lab: Lab) -> None:
        before = lab.script.unnamed
        for case in cases:
            request, status = REFUSED[case]
            with Raw(lab.proxy.port) as raw:
                with contextlib.suppress(ConnectionError):  # refused before the last byte
                    raw.send(request)
                answer = raw.all()
            assert answer.startswith(b"HTTP/1.1 %d " % status), (case, answer[:100])
        assert lab.script.unnamed == before, "it reached the upstream"


for _row, _name in NAMES.items():
    refused(_row, _name)


def sent_to(lab: Lab, target: str) -> str:
    """The request line that an upstream gets for a target."""
    headers = {"Host": "evil.test"}
    assert lab.call(method="GET", path=target, headers=headers).status == 200
    request = lab.script.last()
    assert request.header("host") == f"127.0.0.1:{lab.upstream.port}"
    return request.line


@fault(11, "an absolute-form target")
def absolute_target(lab: Lab) -> None:
    assert sent_to(lab, "http://evil.test/v1/models") == "GET /v1/models HTTP/1.1"


@fault(12, "a target that begins with //")
def double_slash(lab: Lab) -> None:
    assert "//evil.test/x HTTP/1.1" in sent_to(lab, "//evil.test/x")


@fault(14, "%2F and %3A in a path")
def encoded_path(lab: Lab) -> None:
    assert sent_to(lab, "/v1/files/a%2Fb%3Ac?q=%20") == "GET /v1/files/a%2Fb%3Ac?q=%20 HTTP/1.1"


@fault(17, "a gzip bomb as a request's body", tries=2)
def gzip_bomb(lab: Lab) -> None:
    bomb = gzip.compress(bytes(256 * MEGABYTE), 6)
    before = memory_bytes(lab)
    reply = lab.call(bomb, headers={"Content-Encoding": "gzip"})
    assert reply.status == 200
    assert lab.script.last().body == bomb
    assert memory_bytes(lab) - before < 64 * MEGABYTE, "it was inflated"


@fault(18, "a body over the limit")
def body_over_limit(lab: Lab) -> None:
    before = lab.script.unnamed
    with Raw(lab.proxy.port) as raw:
        raw.send(POST + b"Content-Length: 99999999999\r\n\r\n")
        assert raw.all().startswith(b"HTTP/1.1 413 ")
    assert lab.script.unnamed == before


@fault(19, "slow head, slow body, idle connection", tries=1)
def slow_clients(lab: Lab) -> None:
    before = lab.script.unnamed
    pieces = (b"", b"POST /v1/chat", POST, POST + LENGTH + BODY[:5])
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(Raw(lab.proxy.port, timeout=30)) for _ in pieces]
        for link, piece in zip(links, pieces, strict=True):
            link.send(piece)
        for link in links:
            link.all()  # closed by the proxy, or the read times out
    assert lab.script.unnamed == before


@fault(19, "slowhttptest: heads, bodies, readers", tries=1, slow=True, needs=("slowhttptest",))
def slow_http_test(lab: Lab) -> None:
    url = f"{lab.proxy.url}/v1/models"
    # 200 connections each. Slow heads and bodies are ended by a deadline; who reads slowly gets
    # what the kernel holds, and keeps nobody else waiting.
    ends = {"-H": "No open connections left", "-B": "No open connections left", "-X": ""}
    for mode, end in ends.items():
        done = subprocess.run(
            ["slowhttptest", mode, "-c", "200", "-r", "100", "-l", "20", "-u", url],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        told = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split())
        assert f"Exit status: {end}" in told, (mode, told[-600:])
        assert "service available: YES" in told, (mode, told[-600:])
        assert "service available: NO" not in told, (mode, told[-600:])
        wait_for(lambda: lab.metric("tokenweir_connections_open") < 10, 30, "links are freed")


@behaviour("flood")
async def flood(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    name = request.header("x-try") or ""
    writer.write(STREAM_HEAD)
    FLOODED[name] = 0
    while FLOODED[name] < 512 * MEGABYTE:
        writer.write(chunk(bytes(65_536)))
        await writer.drain()
        FLOODED[name] += 65_536


FLOODED: dict[str, int] = {}


@fault(20, "a reader that stops reading", tries=2)
def slow_reader(lab: Lab) -> None:
    before = memory_bytes(lab)
    name = lab.next_try()
    with Raw(lab.proxy.port) as raw:
        raw.send(lab.raw_request(chat(), do="flood", name=name))
        raw.until(b"200 OK")

        def rests() -> bool:
            so_far = FLOODED.get(name, 0)
            time.sleep(0.3)
            return 0 < so_far == FLOODED[name]

        wait_for(rests, 20, "the upstream is paused")
        assert FLOODED[name] < 64 * MEGABYTE, "everything was read ahead"
        grown = (memory_bytes(lab) - before) / MEGABYTE
        assert grown < 32, f"memory grew by {grown:.0f} MB"
    assert lab.observation(name)["error_type"] == "client_disconnected"


@fault(21, "1,000 pipelined requests", tries=1)
def pipelined(lab: Lab) -> None:
    requests = [lab.raw_request(method="GET", path="/v1/models") for _ in range(999)]
    last = lab.raw_request(method="GET", path="/v1/models", headers={"Connection": "close"})
    with Raw(lab.proxy.port, timeout=60) as raw:
        raw.send(b"".join([*requests, last]))
        assert raw.all().count(b"HTTP/1.1 200 OK") == 1000


@fault(21, "h2load: 20,000 calls, 16 at once on 50 connections", tries=1, slow=True,
       needs=("h2load",))  # fmt: skip
def pipelined_load(lab: Lab) -> None:
    done = subprocess.run(
        ["h2load", "--h1", "-n", "20000", "-c", "50", "-m", "16", f"{lab.proxy.url}/v1/models",
         "-H", "Authorization: Bearer sk-h2load-0123456789", "-H", "x-tokenweir-agent: h2load"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert "20000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout[-800:]


@fault(22, "fields that Connection lists")
def listed_fields(lab: Lab) -> None:
    listed = {"Connection": "x-agent-id, keep-alive", "X-Agent-Id": "listed-agent"}
    plain = lab.raw_request(headers=listed).replace(b"X-Tokenweir-Agent: chaos\r\n", b"")
    with Raw(lab.proxy.port) as raw:
        assert b"200 OK" in raw.send(plain).until(b"Hello.")
    assert lab.script.last().header("x-agent-id") is None
    assert lab.last()["agent"] == "listed-agent"


@fault(24, "Expect: 100-continue, then a refusal")
def expectation(lab: Lab) -> None:
    with Raw(lab.proxy.port) as raw:
        request = lab.raw_request(headers={"Expect": "100-continue"})
        head, _, body = request.partition(b"\r\n\r\n")
        raw.send(head + b"\r\n\r\n")
        assert raw.until(b"100 Continue\r\n\r\n").startswith(b"HTTP/1.1 100")
        raw.send(body)
        assert b"200 OK" in raw.until(b"Hello.")
        raw.send(lab.raw_request(headers={"X-Tokenweir-Agent": "after"}))
        assert b"200 OK" in raw.until(b"Hello."), "stray bytes on the connection"
        before = lab.script.unnamed
        raw.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.all().startswith(b"HTTP/1.1 413 ")
    assert lab.script.unnamed == before


@fault(25, "x_agent_id with underscores")
def underscores(lab: Lab) -> None:
    plain = lab.raw_request(headers={"x_agent_id": "underscored"})
    with Raw(lab.proxy.port) as raw:
        raw.send(plain.replace(b"X-Tokenweir-Agent: chaos\r\n", b""))
        assert b"200 OK" in raw.until(b"Hello.")
    assert lab.script.last().header("x_agent_id") == "underscored"
    assert lab.last()["agent"] != "underscored"
