"""What RFC 6455 asks of an endpoint, as frames to send and what must come back.

The list follows the chapters of Autobahn's fuzzing client (which runs on Python 2 alone):
framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, sizes.

Owns: the cases. Must never: open a connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, INVALID_PAYLOAD = 1000, 1002, 1007
_MASK = b"\x11\x22\x33\x44"

#: Texts of chapter 6 that are well formed, and byte strings that are not UTF-8.
VALID_TEXT = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", b"\x00", b"\x7f", b"\xc2\x80", b"\xdf\xbf",
    b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xef\xbf\xbe",
    b"\xef\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf0\x9f\x98\x80",
)  # fmt: skip
INVALID_TEXT = (
    b"\x80", b"\xbf", b"\x80\xbf", b"\xc0", b"\xc1\x81", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xe0",
    b"\xe0\x80", b"\xef\xbf", b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xbf\xbf", b"\xf0",
    b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80\x65",
)  # fmt: skip
GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """One masked frame."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    mask = _MASK * (size // 4 + 1)
    hidden = int.from_bytes(payload) ^ int.from_bytes(mask[:size])
    return head + _MASK + hidden.to_bytes(size)


def goodbye(code: int | None = NORMAL, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


@dataclass(frozen=True)
class Case:
    """Bytes to send, in pieces of ``chop``; then the frames and the close code to come back.

    ``back`` is ``None`` where what comes before the close is left open. ``code`` 1005 is a
    close frame without one.
    """

    name: str
    send: bytes
    back: tuple[tuple[int, bytes], ...] | None
    code: int = NORMAL
    chop: int = 1 << 30

    def pieces(self) -> tuple[list[bytes], bytes]:
        """What to send at once, and the goodbye that waits for the answers to it."""
        end = goodbye() if self.back and self.send.endswith(goodbye()) else b""
        data = self.send[: len(self.send) - len(end)]
        return [data[at : at + self.chop] for at in range(0, len(data), self.chop)], end


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _framing()
    yield from _control()
    yield from _faults()
    yield from _fragments()
    yield from _texts()
    yield from _closing()
    yield from _sizes()


def _framing() -> Iterator[Case]:
    for opcode, letter in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in (0, 125, 126, 127, 128, 65_535, 65_536):
            data = letter * size
            yield Case(f"1 {opcode} {size}", frame(opcode, data) + goodbye(), ((opcode, data),))
        data = letter * 65_536
        yield Case(
            f"1 {opcode} chopped", frame(opcode, data) + goodbye(), ((opcode, data),), chop=997
        )


def _control() -> Iterator[Case]:
    for name, data in (("empty", b""), ("text", b"Hello"), ("binary", b"\x00\xff\xfe\xfd"),
                       ("125", b"\xfe" * 125)):  # fmt: skip
        yield Case(f"2 ping {name}", frame(PING, data) + goodbye(), ((PONG, data),))
        yield Case(f"2 chopped ping {name}", frame(PING, data) + goodbye(), ((PONG, data),), chop=1)
        yield Case(f"2 pong {name}", frame(PONG, data) + goodbye(), ())
    pings = [b"payload-%d" % n for n in range(10)]
    sent = b"".join(frame(PING, p) for p in pings)
    yield Case("2 ten pings", sent + goodbye(), tuple((PONG, p) for p in pings))
    yield Case("2 ten pings chopped", sent + goodbye(), tuple((PONG, p) for p in pings), chop=1)
    yield Case("2 ping of 126", frame(PING, b"x" * 126), (), PROTOCOL_ERROR)


def _faults() -> Iterator[Case]:
    for reserved in range(1, 8):
        yield Case(f"3 reserved {reserved}", frame(TEXT, b"hi", reserved=reserved), None,
                   PROTOCOL_ERROR)  # fmt: skip
        yield Case(
            f"3 reserved {reserved} after a text",
            frame(TEXT, b"hi") + frame(PING, reserved=reserved), None, PROTOCOL_ERROR,
        )  # fmt: skip
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"4 opcode {opcode}", frame(opcode), None, PROTOCOL_ERROR)
        yield Case(f"4 opcode {opcode} with data", frame(opcode, b"x"), None, PROTOCOL_ERROR)
    yield Case("5 ping in parts", frame(PING, b"a", fin=False) + frame(0, b"b"), (), PROTOCOL_ERROR)
    yield Case("5 pong in parts", frame(PONG, b"a", fin=False) + frame(0, b"b"), (), PROTOCOL_ERROR)
    for fin in (True, False):
        yield Case(f"5 continues nothing {fin}", frame(0, b"x", fin=fin), None, PROTOCOL_ERROR)
    yield Case(
        "5 text inside a text", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), (), PROTOCOL_ERROR
    )
    unmasked = b"\x81\x02hi"
    yield Case("unmasked", unmasked, (), PROTOCOL_ERROR)


def _fragments() -> Iterator[Case]:
    parts = frame(TEXT, b"frag", fin=False), frame(0, b"ment")
    whole = ((TEXT, b"fragment"),)
    for chop in (1 << 30, 1):
        yield Case(f"5 two parts {chop}", parts[0] + parts[1] + goodbye(), whole, chop=chop)
        yield Case(
            f"5 a ping between {chop}", parts[0] + frame(PING, b"p") + parts[1] + goodbye(),
            ((PONG, b"p"), *whole), chop=chop,
        )  # fmt: skip
    many = b"".join(frame(TEXT if n == 0 else 0, b"x", fin=n == 99) for n in range(100))
    yield Case("5 a hundred parts", many + goodbye(), ((TEXT, b"x" * 100),))
    twice = parts[0] + parts[1]
    yield Case("5 two messages", twice + twice + goodbye(), whole * 2)
    empty = frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) + frame(0, b"")
    yield Case("5 empty parts", empty + goodbye(), ((TEXT, b""),))


def _texts() -> Iterator[Case]:
    for number, data in enumerate(VALID_TEXT):
        yield Case(f"6 text {number}", frame(TEXT, data) + goodbye(), ((TEXT, data),))
        bytewise = b"".join(frame(TEXT if at == 0 else 0, data[at : at + 1], fin=False)
                            for at in range(len(data))) + frame(0)  # fmt: skip
        yield Case(f"6 text {number} by bytes", bytewise + goodbye(), ((TEXT, data),))
    for number, data in enumerate(INVALID_TEXT):
        yield Case(f"6 no text {number}", frame(TEXT, data), (), INVALID_PAYLOAD)
        split = frame(TEXT, b"ok " + data[:1], fin=False) + frame(0, data[1:] + b"")
        yield Case(f"6 no text {number} in parts", split, (), INVALID_PAYLOAD)
        yield Case(
            f"6 binary {number}", frame(BINARY, data) + goodbye(), ((BINARY, data),)
        )  # fmt: skip


def _closing() -> Iterator[Case]:
    yield Case("7 text, close", frame(TEXT, b"Hello") + goodbye(), ((TEXT, b"Hello"),))
    yield Case("7 two closes", goodbye() + goodbye(), ())
    yield Case("7 close, ping", goodbye() + frame(PING, b"x"), ())
    yield Case("7 close, text", goodbye() + frame(TEXT, b"x"), ())
    yield Case("7 close without a code", goodbye(None), (), 1005)
    yield Case("7 close of one byte", frame(CLOSE, b"\x03"), (), PROTOCOL_ERROR)
    yield Case("7 reason", goodbye(NORMAL, b"Hello"), ())
    yield Case("7 reason of 123", goodbye(NORMAL, b"x" * 123), ())
    yield Case("7 close of 126", frame(CLOSE, struct.pack(">H", NORMAL) + b"x" * 124), (),
               PROTOCOL_ERROR)  # fmt: skip
    yield Case("7 reason that is no text", goodbye(NORMAL, b"\xce\xff"), (), INVALID_PAYLOAD)
    for code in GOOD_CODES:
        yield Case(f"7 code {code}", goodbye(code), (), code)
    for code in BAD_CODES:
        yield Case(f"7 bad code {code}", goodbye(code), (), PROTOCOL_ERROR)


def _sizes() -> Iterator[Case]:
    longest = b"BAsd7&jh" * (1 << 19)
    for opcode in (TEXT, BINARY):
        for size in (1 << 18, 1 << 20, 1 << 22):
            data = longest[:size]
            yield Case(f"9 {opcode} {size}", frame(opcode, data) + goodbye(), ((opcode, data),))
        for part in (64, 1024, 1 << 14):
            pieces = [longest[at : at + part] for at in range(0, part << 8, part)]
            sent = b"".join(
                frame(opcode if n == 0 else 0, piece, fin=n == len(pieces) - 1)
                for n, piece in enumerate(pieces)
            )
            back = ((opcode, b"".join(pieces)),)
            yield Case(f"9 {opcode} in parts of {part}", sent + goodbye(), back)
        for chop in (64, 1024):
            data = longest[: chop << 10]
            sent = frame(opcode, data) + goodbye()
            yield Case(f"9 {opcode} chopped to {chop}", sent, ((opcode, data),), chop=chop)
