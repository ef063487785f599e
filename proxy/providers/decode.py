"""Reading compressed bodies while the bytes themselves pass untouched.

Owns: incremental decompression for inspection, bounded per step and in total.
Must never: raise, or let a small body unfold without limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli

#: Most that one body is unfolded to before inspection gives up.
MAX_BYTES = 1 << 30
_STEP_BYTES = 1 << 18
#: A block of zstandard takes four bytes and unfolds to 128 KiB at most.
_ZSTD_STEP_BYTES = 64
#: Above this a ratio of more than ``_MAX_RATIO`` is taken for a bomb.
_RATIO_FROM_BYTES = 1 << 26
_MAX_RATIO = 200


class Inflater:
    """gzip and deflate, with or without the zlib header that servers disagree on."""

    def __init__(self, encoding: str) -> None:
        self._raw_allowed = encoding == "deflate"
        self._engine = zlib.decompressobj(31 if encoding == "gzip" else 15)
        self._first = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes, in steps. Raises ``zlib.error``."""
        if self._raw_allowed:
            self._first += data
            if len(self._first) < 2:
                return
            data, self._raw_allowed = self._first, False
            if (data[0] & 15) != 8 or (data[0] << 8 | data[1]) % 31:
                self._engine = zlib.decompressobj(-15)
        while data:
            if self._engine.eof:
                if not data.startswith(b"\x1f\x8b"):
                    return
                self._engine = zlib.decompressobj(31)
            yield self._engine.decompress(data, _STEP_BYTES)
            data = self._engine.unconsumed_tail or self._engine.unused_data


class _Brotli:
    """Brotli, whose few bytes can unfold to megabytes: taken in bounded steps."""

    def __init__(self) -> None:
        self._engine = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes. Raises ``brotli.error``."""
        engine = self._engine
        while not engine.is_finished():
            yield engine.process(data, output_buffer_limit=_STEP_BYTES)
            data = b""
            if engine.can_accept_more_data():
                return


class _Zstandard:
    """Zstandard. Its engine takes no limit, so a small input step bounds what it unfolds to."""

    def __init__(self) -> None:
        import zstandard  # half a megabyte, and 2 ms at the first answer that comes so

        self._engine = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes. Raises ``zstandard.ZstdError``."""
        for start in range(0, len(data), _ZSTD_STEP_BYTES):
            yield self._engine.decompress(data[start : start + _ZSTD_STEP_BYTES])


_ENGINES: dict[str, Callable[[], Inflater | _Brotli | _Zstandard]] = {
    "gzip": lambda: Inflater("gzip"),
    "x-gzip": lambda: Inflater("gzip"),
    "deflate": lambda: Inflater("deflate"),
    "br": _Brotli,
    "zstd": _Zstandard,
}


def unfolded(data: bytes, encodings: str, most_bytes: int) -> bytes:
    """The first ``most_bytes`` of a body without its ``content-encoding``; ``b""`` if it
    can't be read."""
    decoder = Decoder(encodings)
    found = bytearray()
    for piece in decoder.feed(data):
        found += piece
        if len(found) >= most_bytes:
            return bytes(found[:most_bytes])
    return bytes(found) if decoder.readable else b""


class Decoder:
    """Undoes a ``content-encoding``.

    ``readable`` turns false for good once the encoding is unknown, the data are
    broken, or they unfold past all reason.
    """

    __slots__ = ("_read", "_steps", "_written", "readable")

    def __init__(self, encodings: str) -> None:
        self._steps: list[Inflater | _Brotli | _Zstandard] = []
        self._read = 0
        self._written = 0
        self.readable = True
        for encoding in reversed([e.strip().lower() for e in encodings.split(",")]):
            if encoding in ("", "identity", "aws-chunked"):
                continue
            engine = _ENGINES.get(encoding)
            if engine is None or len(self._steps) >= 2:
                self.readable = False
                return
            self._steps.append(engine())

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes, in bounded steps; nothing more once unreadable."""
        if not self.readable:
            return
        self._read += len(data)
        try:
            for piece in self._through(data, 0):
                self._written += len(piece)
                bomb = self._written > _RATIO_FROM_BYTES and self._written > _MAX_RATIO * self._read
                if bomb or self._written > MAX_BYTES:
                    self.readable = False
                    return
                if piece:
                    yield piece
        except Exception:
            # Each engine has errors of its own; to the inspection they all mean the same.
            self.readable = False

    def _through(self, data: bytes, index: int) -> Iterator[bytes]:
        if index == len(self._steps):
            yield data
            return
        for piece in self._steps[index].feed(data):
            yield from self._through(piece, index + 1)
