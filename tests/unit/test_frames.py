"""WebSocket framing, checked as bytes pass."""

from __future__ import annotations

import pytest

from proxy.http.frames import INVALID_PAYLOAD, MESSAGE_TOO_BIG, PROTOCOL_ERROR, FrameGuard


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"abcd") -> bytes:
    first = (0x80 if fin else 0) | opcode
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = bytes((first, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8)
    if mask:
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return head + mask + payload


def feed(data: bytes, *, step: int, masked: bool = True, most: int = 1000) -> FrameGuard:
    guard = FrameGuard(masked=masked, max_message_bytes=most)
    for at in range(0, len(data), step):
        guard.feed(data[at : at + step])
    return guard


WORDS = "Grüße, 世界 🌍".encode()
CASES = {
    "text": (frame(1, WORDS), None),
    "split text with a ping between": (
        frame(1, WORDS[:3], fin=False) + frame(9, b"\xff\xfe") + frame(0, WORDS[3:]),
        None,
    ),
    "long": (frame(2, b"\xff" * 700), None),
    "bad utf-8": (frame(1, b"\xc3\x28"), INVALID_PAYLOAD),
    "text that ends inside a letter": (frame(1, WORDS[:3]), INVALID_PAYLOAD),
    "too long": (frame(2, b"x" * 1001), MESSAGE_TOO_BIG),
    "too long in parts": (
        frame(2, b"x" * 600, fin=False) + frame(0, b"x" * 600),
        MESSAGE_TOO_BIG,
    ),
    "unmasked": (frame(1, b"hi", mask=b""), PROTOCOL_ERROR),
    "unknown opcode": (frame(3, b"hi"), PROTOCOL_ERROR),
    "split ping": (frame(9, b"hi", fin=False), PROTOCOL_ERROR),
    "continues nothing": (frame(0, b"hi"), PROTOCOL_ERROR),
    "a new message inside another": (
        frame(1, b"a", fin=False) + frame(1, b"b"),
        PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
@pytest.mark.parametrize("name", CASES)
def test_each_frame_gets_the_close_code_it_deserves(name: str, step: int) -> None:
    data, code = CASES[name]
    assert feed(data, step=step).violation == code


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_close_frame_is_seen(step: int) -> None:
    guard = feed(frame(1, b"hi") + frame(8, b"\x03\xe8bye") + b"rest", step=step)
    assert guard.closed
    assert guard.violation is None
