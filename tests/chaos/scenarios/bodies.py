"""Bodies and streams that lie, break off or never end (rows 26-39).

Owns: what the upstream says then, and what client and journal must show. Must
never: check a number that the upstream did not send.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

from tests.chaos.lab import Lab, Reply, chat, fault
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk, event_stream
from tests.rig import Raw, Received, chat_answer, json_answer, wait_for

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
BIG_EVENT_BYTES = 24 * 2**20
STREAM = chat(stream=True, stream_options={"include_usage": True})


def make_shared(folder: Path) -> Lab:
    """The group's lab: messages of a WebSocket may hold 1 MiB, and one upstream speaks AWS."""
    lab = Lab(folder, {"server": {"max_websocket_message_bytes": 2**20}})
    lab.add_upstreams(aws={"base_url": lab.upstream.url, "wire": "bedrock"})
    return lab


def words(*, usage: dict[str, int] | None = None, finish: bool = True) -> list[object]:
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    events: list[object] = [
        {**base, "choices": [{"index": 0, "delta": {"content": w}, "finish_reason": None}]}
        for w in ("un ", "deux ", "trois é")
    ]
    if finish:
        events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        events.append({**base, "choices": [], "usage": usage})
    return events


USAGE = {"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26}
WHOLE = event_stream(words(usage=USAGE))


async def say(writer: Writer, *pieces: bytes, head: bytes = STREAM_HEAD) -> None:
    writer.write(head)
    for piece in pieces:
        writer.write(chunk(piece))
        await writer.drain()
    writer.write(chunk(b""))


def untouched(lab: Lab, body: bytes, **call: Any) -> Reply:
    """Send a body: it must arrive as it is, and be answered."""
    reply = lab.call(body, **call)
    assert reply.status == 200 and reply.whole
    assert lab.script.last().body == body
    return reply


@behaviour("refuse")
async def refuse(request: Received, reader: Reader, writer: Writer) -> bool:
    error = {"message": "can not parse", "type": "invalid_request_error", "code": None}
    writer.write(json_answer({"error": error}, 400))
    return True


@fault(26, "invalid JSON in a request")
def invalid_json(lab: Lab) -> None:
    body = b'{"model": "gpt-4o-mini", "messages": ['
    assert lab.call(body, do="refuse").status == 400
    assert lab.script.last().body == body
    record = lab.last()
    assert record["usage_source"] == "unknown" and record["input_tokens"] is None


@fault(27, "100,000-deep nesting")
def deep_nesting(lab: Lab) -> None:
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b'{"model":"m","x":' + b"[" * 100_000):
        untouched(lab, body)
        assert lab.last()["status"] == 200


@fault(28, "duplicate model members")
def duplicate_model(lab: Lab) -> None:
    body = b'{"model":"gpt-4o-mini","model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    untouched(lab, body)
    # A reader of JSON takes the last of two members, so the dear one is what is asked for.
    assert lab.last()["model"] == "gpt-4o"


@behaviour("odd-counts")
async def odd_counts(request: Received, reader: Reader, writer: Writer) -> bool:
    odd = json.loads(request.header("x-counts") or "null")
    answer = json.dumps(chat_answer() | {"usage": None}).encode()
    written = json.dumps(odd).replace('"NaN"', "NaN").encode()
    writer.write(json_answer(answer.replace(b'"usage": null', b'"usage": ' + written)))
    return True


@fault(29, "negative, NaN and huge token counts")
def impossible_counts(lab: Lab) -> None:
    for odd in (-5, "NaN", 10**30, 1e300, 1.5, True, "12"):
        counts = {"prompt_tokens": odd, "completion_tokens": odd}
        reply = lab.call(do="odd-counts", headers={"x-counts": json.dumps(counts)})
        assert reply.status == 200 and reply.whole
        record = lab.last()
        for name in ("input_tokens", "output_tokens", "cost_nano_usd"):
            value = record[name]
            assert value is None or 0 <= value < 10**12, (odd, name, value)
        assert record["usage_source"] != "reported", (odd, record["usage_source"])


@behaviour("no-usage")
async def no_usage(request: Received, reader: Reader, writer: Writer) -> bool:
    writer.write(json_answer({k: v for k, v in chat_answer().items() if k != "usage"}))
    return True


@fault(30, "usage absent")
def usage_absent(lab: Lab) -> None:
    assert lab.call(do="no-usage").whole
    record = lab.last()
    assert record["usage_source"] == "estimated"
    assert record["input_tokens"] and record["output_tokens"] and record["cost_nano_usd"]


@behaviour("byte-by-byte")
async def byte_by_byte(request: Received, reader: Reader, writer: Writer) -> bool:
    writer.write(STREAM_HEAD)
    for at in range(len(WHOLE)):
        writer.write(chunk(WHOLE[at : at + 1]))
        if at % 8 == 0:
            await writer.drain()
            await asyncio.sleep(0)
    writer.write(chunk(b""))
    return True


@fault(31, "a stream split at every byte")
def split_everywhere(lab: Lab) -> None:
    reply = lab.call(STREAM, do="byte-by-byte")
    assert reply.whole and reply.body == WHOLE
    record = lab.last()
    assert (record["input_tokens"], record["output_tokens"]) == (21, 5)
    assert record["usage_source"] == "reported"


@behaviour("endless-event")
async def endless_event(request: Received, reader: Reader, writer: Writer) -> bool:
    writer.write(STREAM_HEAD)
    writer.write(chunk(b'data: {"choices":[{"delta":{"content":"'))
    piece = b"a" * 65_536
    for _ in range(BIG_EVENT_BYTES // len(piece)):
        writer.write(chunk(piece))
        await writer.drain()
    writer.write(chunk(b""))
    return True


@fault(32, "an event that never ends", tries=2)
def event_without_end(lab: Lab) -> None:
    before = memory_bytes(lab)
    reply = lab.call(STREAM, do="endless-event", timeout=60)
    assert reply.whole and len(reply.body) > BIG_EVENT_BYTES
    grown = memory_bytes(lab) - before
    assert grown < BIG_EVENT_BYTES // 2, f"grew by {grown} bytes"
    assert lab.last()["usage_source"] != "reported"


def memory_bytes(lab: Lab) -> int:
    """Resident memory of the proxy."""
    fields = Path(f"/proc/{lab.proxy.process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@behaviour("no-terminal-event")
async def no_terminal_event(request: Received, reader: Reader, writer: Writer) -> bool:
    await say(writer, event_stream(words(finish=False), done=False))
    return True


@fault(33, "no terminal event")
def without_terminal_event(lab: Lab) -> None:
    reply = lab.call(STREAM, do="no-terminal-event")
    assert reply.status == 200 and reply.whole
    record = lab.last()
    assert record["error_type"], "a stream without its end counts as a success"
    assert record["usage_source"] == "estimated"


@behaviour("truncated")
async def truncated(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(WHOLE[:100]) + b"fff\r\npartial")
    await writer.drain()
    writer.close()


@behaviour("short-body")
async def short_body(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(json_answer(chat_answer())[:-20])
    await writer.drain()
    writer.close()


@fault(34, "a truncated body")
def truncated_body(lab: Lab) -> None:
    for do in ("truncated", "short-body"):
        reply = lab.call(STREAM, do=do)
        assert reply.status == 200 and not reply.whole, f"{do}: a clean end"
        assert lab.last()["error_type"] == "upstream_truncated"


@behaviour("compressed")
async def compressed(request: Received, reader: Reader, writer: Writer) -> bool:
    how = request.header("accept-encoding") or ""
    data = gzip.compress(WHOLE) if how == "gzip" else zlib.compress(WHOLE)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %b\r\n\r\n" % how.encode())
    await say(writer, *(data[at : at + 7] for at in range(0, len(data), 7)), head=head)
    return True


@fault(35, "a compressed stream")
def compressed_stream(lab: Lab) -> None:
    for how in ("gzip", "deflate"):
        reply = lab.call(STREAM, do="compressed", headers={"Accept-Encoding": how})
        assert reply.whole and reply.headers["content-encoding"] == how
        plain = gzip.decompress(reply.body) if how == "gzip" else zlib.decompress(reply.body)
        assert plain == WHOLE
        assert lab.last()["output_tokens"] == 5


@behaviour("error-in-200")
async def error_in_200(request: Received, reader: Reader, writer: Writer) -> bool:
    error = {"error": {"type": "server_error", "message": "overloaded", "code": None}}
    await say(writer, event_stream([*words(finish=False)[:1], error], done=False))
    return True


@fault(36, "an error event inside a 200")
def error_inside_200(lab: Lab) -> None:
    before = lab.metric("tokenweir_errors_total")
    assert lab.call(STREAM, do="error-in-200").whole
    assert "server_error" in str(lab.last()["error_type"])
    assert lab.metric("tokenweir_errors_total") > before


@behaviour("cumulative")
async def cumulative(request: Received, reader: Reader, writer: Writer) -> bool:
    start = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5"}
    start |= {"content": [], "usage": {"input_tokens": 30, "output_tokens": 1}}
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"type": "message_start", "message": start})
    ]
    for tokens in (5, 9, 14):
        delta = {"stop_reason": "end_turn" if tokens == 14 else None}
        usage = {"output_tokens": tokens}
        event = {"type": "message_delta", "delta": delta, "usage": usage}
        events.append(("message_delta", event))
    events.append(("message_stop", {"type": "message_stop"}))
    text = "".join(f"event: {name}\ndata: {json.dumps(e)}\n\n" for name, e in events)
    await say(writer, text.encode())
    return True


@fault(37, "cumulative usage")
def cumulative_usage(lab: Lab) -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 50, "stream": True}
    body["messages"] = [{"role": "user", "content": "x"}]
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "sk-ant-chaos-012345"}
    assert lab.call(body, do="cumulative", path="/v1/messages", headers=headers).whole
    record = lab.last()
    assert (record["input_tokens"], record["output_tokens"]) == (30, 14)


def aws_event(kind: str, body: dict[str, Any], *, bad: bool = False) -> bytes:
    """A message of an AWS event stream (prelude, headers, payload, two CRCs)."""
    fields = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(n)]) + n.encode() + b"\x07" + struct.pack(">H", len(v)) + v.encode()
        for n, v in fields.items()
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message) ^ (0xFFFF if bad else 0))


BAD_CRC = aws_event("messageStart", {"role": "assistant"}) + aws_event(
    "metadata",
    {"usage": {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6}, "metrics": {}},
    bad=True,
)


@behaviour("bad-crc")
async def bad_crc(request: Received, reader: Reader, writer: Writer) -> bool:
    head = STREAM_HEAD.replace(b"text/event-stream", b"application/vnd.amazon.eventstream")
    await say(writer, BAD_CRC, head=head)
    return True


@fault(38, "a bad event-stream CRC")
def bad_checksum(lab: Lab) -> None:
    reply = lab.call(
        {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        do="bad-crc",
        path="/aws/model/anthropic.claude-3-haiku-20240307-v1:0/converse-stream",
    )
    assert reply.whole and reply.body == BAD_CRC
    record = lab.last()
    assert record["status"] == 200
    assert record["usage_source"] != "reported", "a message with a bad checksum was believed"


# -- WebSockets --------------------------------------------------------------------


@behaviour("websocket")
async def websocket(request: Received, reader: Reader, writer: Writer) -> None:
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    try:
        while data := await reader.read(65_536):
            SEEN_BY_UPSTREAM.append(data)
            if b"\x88\x82" in data:
                writer.write(b"\x88\x02\x03\xe8")
                break
    finally:
        UPSTREAMS_FREED.append(1)


SEEN_BY_UPSTREAM: list[bytes] = []
UPSTREAMS_FREED: list[int] = []
MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes, *, masked: bool = True, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    head = bytes([0x80 | opcode])
    mark = 0x80 if masked else 0
    if size < 126:
        head += bytes([mark | size])
    elif size < 65_536:
        head += bytes([mark | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    return head + MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(payload))


def close_code(data: bytes) -> int | None:
    """The code of the close frame that ends what the proxy sent."""
    at = data.rfind(b"\x88")
    return struct.unpack(">H", data[at + 2 : at + 4])[0] if at >= 0 and len(data) > at + 3 else None


SESSIONS: dict[str, tuple[bytes, int | None]] = {
    "unmasked": (frame(1, b"hello", masked=False), 1002),
    "bad UTF-8": (frame(1, b"\xff\xfe\xfd"), 1007),
    "oversize": (frame(2, b"", length=2**21), 1009),
    "clean": (frame(1, b'{"type":"x"}') + frame(8, struct.pack(">H", 1000)), 1000),
    "half-close": (frame(1, b'{"type":"x"}'), None),
}


@fault(39, "WebSocket half-close, oversize, unmasked, bad UTF-8", tries=3)
def websocket_faults(lab: Lab) -> None:
    for name, (frames, wanted) in SESSIONS.items():
        freed = len(UPSTREAMS_FREED)
        with Raw(lab.proxy.port, timeout=10) as raw:
            handshake = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
            }
            path = "/v1/realtime?model=gpt-realtime"
            request = lab.raw_request(method="GET", path=path, do="websocket", headers=handshake)
            raw.send(request)
            assert b" 101 " in raw.until(b"\r\n\r\n"), name
            raw.send(frames)
            if wanted is None:
                raw.socket.shutdown(socket.SHUT_WR)
            code = close_code(raw.all())
        assert code == wanted or wanted is None, f"{name}: {code}, not {wanted}"
        assert lab.last()["status"] == 101
        wait_for(lambda freed=freed: len(UPSTREAMS_FREED) > freed, 5, f"{name}: upstream freed")
