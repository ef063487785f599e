"""WebSocket framing, checked as the bytes pass (RFC 6455 section 5).

Owns: what a frame's head and a text's encoding may be, per direction. Must never:
hold a message, or change a byte.
"""

from __future__ import annotations

import codecs

PROTOCOL_ERROR = 1002
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009

_CONTINUATION, _TEXT, _CLOSE = 0, 1, 8
_OPCODES = frozenset((0, 1, 2, 8, 9, 10))


class FrameGuard:
    """One direction. ``violation`` is the close code that its sender deserves."""

    __slots__ = (
        "_buffer",
        "_control",
        "_decoder",
        "_fin",
        "_in_message",
        "_is_text",
        "_left",
        "_mask",
        "_mask_at",
        "_masked",
        "_max_bytes",
        "_message_bytes",
        "closed",
        "violation",
    )

    def __init__(self, *, masked: bool, max_message_bytes: int) -> None:
        self._masked = masked
        self._max_bytes = max_message_bytes
        self._buffer = b""
        self._left = 0
        self._fin = True
        self._control = False
        self._mask = b""
        self._mask_at = 0
        self._in_message = False
        self._is_text = False
        self._message_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.closed = False
        self.violation: int | None = None

    def feed(self, data: bytes) -> None:
        """Check the next bytes of this direction."""
        if self.violation is not None or self.closed:
            return
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        at = 0
        while at < len(data) and self.violation is None and not self.closed:
            if self._left:
                taken = data[at : at + self._left]
                self._payload(taken)
                at += len(taken)
                self._left -= len(taken)
                if not self._left:
                    self._frame_over()
                continue
            used = self._head(data, at)
            if not used:
                self._buffer = data[at:]
                return
            at += used
            if not self._left:
                self._frame_over()

    def _head(self, data: bytes, at: int) -> int:
        """Read a frame's head; how long it is, 0 while it is not whole."""
        if len(data) - at < 2:
            return 0
        first, second = data[at], data[at + 1]
        length, size = second & 127, 2
        if length > 125:
            size += 2 if length == 126 else 8
            if len(data) - at < size:
                return 0
            length = int.from_bytes(data[at + 2 : at + size])
        masked = bool(second & 128)
        if masked:
            if len(data) - at < size + 4:
                return 0
            self._mask, self._mask_at = data[at + size : at + size + 4], 0
            size += 4
        self._open(first, length, masked)
        self._left = length
        return size

    def _open(self, first: int, length: int, masked: bool) -> None:
        opcode, fin = first & 15, bool(first & 128)
        control = self._control = opcode >= _CLOSE
        continues = opcode == _CONTINUATION
        if (
            masked is not self._masked
            or opcode not in _OPCODES
            or (control and (length > 125 or not fin))
            or (not control and continues is not self._in_message)
        ):
            self.violation = PROTOCOL_ERROR
            return
        if control:
            self.closed = opcode == _CLOSE
            return
        self._fin = fin
        if not continues:
            self._message_bytes = 0
            # Compressed text can't be checked without inflating it; the receiver will.
            self._is_text = opcode == _TEXT and not first & 0x40
            self._decoder.reset()
        self._in_message = not fin
        self._message_bytes += length
        if self._message_bytes > self._max_bytes:
            self.violation = MESSAGE_TOO_BIG

    def _payload(self, data: bytes) -> None:
        if self._control or not self._is_text:
            return
        if self._masked:
            turn = self._mask_at % 4
            mask = (self._mask[turn:] + self._mask[:turn]) * (len(data) // 4 + 1)
            data = (int.from_bytes(data) ^ int.from_bytes(mask[: len(data)])).to_bytes(len(data))
            self._mask_at += len(data)
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError:
            self.violation = INVALID_PAYLOAD

    def _frame_over(self) -> None:
        if self._is_text and self._fin and not self._control:
            try:
                self._decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self.violation = INVALID_PAYLOAD
            self._is_text = False
