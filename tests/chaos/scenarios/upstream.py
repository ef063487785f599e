"""Upstreams that refuse, stall, break off or talk nonsense (rows 40-52).

Owns: how each is made to happen on a real socket. Must never: need another host.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

from tests.chaos.lab import Lab, chat, fault
from tests.chaos.scenarios.bodies import WHOLE, words
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk, event_stream
from tests.rig import Raw, Received, chat_answer, json_answer, wait_for

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
STREAM = chat(stream=True)


def make_shared(folder: Path) -> Lab:
    """The group's lab, with upstreams that can't be reached among them."""
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))  # bound and not listening: refuses
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    port = deaf.getsockname()[1]
    queue = []
    for _ in range(4):  # fill the backlog: the next connect gets no answer at all
        waiting = socket.socket()
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting.connect(("127.0.0.1", port))
        queue.append(waiting)
    lab = Lab(
        folder,
        {
            "upstreams": {
                "dead": {"base_url": f"http://127.0.0.1:{dead.getsockname()[1]}/v1"},
                "nodns": {"base_url": "http://no-such-host.invalid/v1"},
                "deaf": {
                    "base_url": f"http://127.0.0.1:{port}/v1",
                    "connect_timeout_seconds": 0.4,
                },
            }
        },
    )
    url = lab.upstream.url + "/v1"
    narrow = {"max_connections": 2, "queue_limit": 2, "queue_timeout_seconds": 0.4}
    lab.add_upstreams(
        drip={"base_url": url, "idle_timeout_seconds": 0.5},
        small={"base_url": url, **narrow},
    )
    for link in (dead, deaf, *queue):
        lab.defer(link.close)
    return lab


PATH = "/{}/v1/chat/completions"


@fault(40, "connect refused, DNS failure")
def unreachable(lab: Lab) -> None:
    for upstream, kind in (("dead", "refused"), ("nodns", "dns")):
        reply = lab.call(path=PATH.format(upstream))
        assert reply.status == 502 and b"error" in reply.body, upstream
        record = lab.last()
        assert record["error_type"] == f"upstream_{kind}"
        assert not record["cost_nano_usd"]


@fault(41, "connect timeout", tries=3)
def connect_timeout(lab: Lab) -> None:
    assert lab.call(path=PATH.format("deaf")).status == 504
    assert lab.last()["error_type"] == "upstream_connect_timeout"


def reset(writer: Writer) -> None:
    """Close with a TCP reset."""
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@behaviour("reset")
async def reset_at_once(request: Received, reader: Reader, writer: Writer) -> None:
    reset(writer)


@fault(42, "reset before the head; a POST is sent once")
def reset_before_head(lab: Lab) -> None:
    for _ in range(2):  # the second finds a kept connection, if there is one
        reply = lab.call(do="reset")
        name = f"{lab._prefix}-{lab._tries}"
        assert reply.status == 502
        assert lab.script.arrived.count(name) == 1, "the POST was sent again"
        assert lab.last()["status"] == 502
        assert lab.call().status == 200


@behaviour("reset-mid-body")
async def reset_mid_body(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(WHOLE[:200]))
    await writer.drain()
    await asyncio.sleep(0.05)
    reset(writer)


@fault(43, "reset inside the body")
def reset_inside_body(lab: Lab) -> None:
    reply = lab.call(STREAM, do="reset-mid-body")
    assert reply.status == 200 and not reply.whole
    record = lab.last()
    assert record["error_type"] == "upstream_truncated"
    assert record["usage_source"] == "estimated"


@behaviour("drip")
async def drip(request: Received, reader: Reader, writer: Writer) -> bool:
    writer.write(STREAM_HEAD)
    for event in words():
        writer.write(chunk(event_stream([event], done=False)))
        await writer.drain()
        await asyncio.sleep(0.3)
    writer.write(chunk(b"data: [DONE]\n\n") + chunk(b""))
    return True


@behaviour("stall")
async def stall(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(WHOLE[:100]))
    await reader.read()


@fault(44, "a slow drip, and a stall", tries=2)
def slow_drip(lab: Lab) -> None:
    # 1.2 s in all at a limit of 0.5 s between pieces: only a pause may end it.
    assert lab.call(STREAM, do="drip", path=PATH.format("drip")).whole
    reply = lab.call(STREAM, do="stall", path=PATH.format("drip"))
    assert reply.status == 200 and not reply.whole
    assert lab.last()["error_type"] == "upstream_idle_timeout"


GARBAGE = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
}


@behaviour("garbage")
async def garbage(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(GARBAGE[request.header("x-garbage") or ""])
    await writer.drain()
    await asyncio.sleep(0.05)


@fault(45, "garbage framing")
def garbage_framing(lab: Lab) -> None:
    for name in GARBAGE:
        reply = lab.call(do="garbage", headers={"x-garbage": name})
        assert reply.status == 502, f"{name}: {reply.status}"
        assert str(lab.last()["error_type"]).startswith("upstream_"), name


@behaviour("endless-1xx")
async def endless_1xx(request: Received, reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0)


@fault(46, "endless 1xx")
def endless_informational(lab: Lab) -> None:
    assert lab.call(do="endless-1xx").status == 502
    assert lab.last()["status"] == 502


@behaviour("huge-headers")
async def huge_headers(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(20_000):
            writer.write(b"X-%d: " % number + b"a" * 1000 + b"\r\n")
            await writer.drain()


@fault(47, "huge headers in an answer")
def huge_answer_headers(lab: Lab) -> None:
    assert lab.call(do="huge-headers").status == 502
    assert lab.last()["error_type"] == "upstream_bad_framing"


@behaviour("redirect")
async def redirect(request: Received, reader: Reader, writer: Writer) -> bool:
    location = "http://169.254.169.254/latest/meta-data/"
    writer.write(json_answer({}, 302, Location=location))
    return True


@fault(48, "redirect to a link-local address")
def link_local_redirect(lab: Lab) -> None:
    reply = lab.call(do="redirect")
    assert reply.status == 302
    assert reply.headers["location"] == "http://169.254.169.254/latest/meta-data/"
    assert lab.last()["status"] == 302


@behaviour("rate-limited")
async def rate_limited(request: Received, reader: Reader, writer: Writer) -> bool:
    writer.write(json_answer(LIMITED, 429, Retry_After="17"))
    return True


LIMITED = {"error": {"message": "slow down", "type": "rate_limit_error", "code": None}}


@fault(49, "429 with Retry-After")
def upstream_rate_limit(lab: Lab) -> None:
    reply = lab.call(do="rate-limited")
    assert reply.status == 429 and reply.headers["retry-after"] == "17"
    assert reply.json() == LIMITED
    assert "x-should-retry" not in reply.headers
    assert lab.last()["status"] == 429


@behaviour("slow")
async def slow(request: Received, reader: Reader, writer: Writer) -> bool:
    await asyncio.sleep(0.8)
    writer.write(json_answer(chat_answer()))
    return True


@fault(50, "connection pool full", tries=2)
def pool_full(lab: Lab) -> None:
    statuses: list[int] = []

    def one() -> None:
        statuses.append(lab.call(do="slow", path=PATH.format("small")).status)

    began = time.monotonic()
    callers = [threading.Thread(target=one) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # Two are served; two wait in line for longer than the line allows; four find it full.
    assert statuses.count(200) == 2 and statuses.count(503) == 6, statuses
    assert time.monotonic() - began < 10
    wait_for(lambda: lab.call(path=PATH.format("small")).status == 200, 5, "room again")


@behaviour("wait-for-hang-up")
async def wait_for_hang_up(request: Received, reader: Reader, writer: Writer) -> None:
    name = request.header("x-try") or ""
    if b'"stream"' in request.body:
        writer.write(STREAM_HEAD + chunk(event_stream(words(finish=False)[:2], done=False)))
    LISTENING.add(name)
    with contextlib.suppress(ConnectionError):
        await reader.read()
    HUNG_UP[name] = time.monotonic()


LISTENING: set[str] = set()
HUNG_UP: dict[str, float] = {}


def hang_up(lab: Lab, body: object, after: bytes) -> float:
    """Call, hang up, and say how long the upstream was kept after that."""
    with Raw(lab.proxy.port) as raw:
        raw.send(lab.raw_request(body, do="wait-for-hang-up"))
        name = f"{lab._prefix}-{lab._tries}"
        wait_for(lambda: name in LISTENING, 5, "the call reached the upstream")
        if after:
            raw.until(after)
        left = time.monotonic()
    wait_for(lambda: name in HUNG_UP, 5, "the upstream was let go")
    return HUNG_UP[name] - left


@fault(51, "client gone before the first byte")
def gone_before_first_byte(lab: Lab) -> None:
    seconds = min(hang_up(lab, chat("a question"), b"") for _ in range(3))
    assert seconds < 0.1, f"the upstream was kept for {seconds:.3f} s"
    record = lab.last()
    assert record["error_type"] == "client_disconnected"
    assert record["cost_nano_usd"], "a prompt that was sent is billed"


@fault(52, "client gone inside a stream")
def gone_inside_stream(lab: Lab) -> None:
    seconds = min(hang_up(lab, STREAM, b"deux") for _ in range(3))
    assert seconds < 0.1, f"the upstream was kept for {seconds:.3f} s"
    record = lab.last()
    assert record["error_type"] == "client_disconnected"
    assert record["usage_source"] == "estimated" and record["output_tokens"]
