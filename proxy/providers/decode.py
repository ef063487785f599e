"""Reading compressed bodies while the bytes themselves pass untouched.

Owns: incremental decompression for inspection, bounded per step and in total.
Must never: raise, or let a small body unfold without limit.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

#: Most that one body is unfolded to before inspection gives up.
MAX_BYTES = 1 << 30
_STEP_BYTES = 1 << 18
#: These engines take no limit for their output: 64 bytes unfold to a few megabytes at most.
_FOREIGN_STEP_BYTES = 64
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


class _Foreign:
    """An engine with one method from bytes to bytes."""

    def __init__(self, step: Callable[[bytes], bytes]) -> None:
        self._step = step

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes. A small input step bounds what a single one can unfold to."""
        for start in range(0, len(data), _FOREIGN_STEP_BYTES):
            yield self._step(data[start : start + _FOREIGN_STEP_BYTES])


def _foreign(encoding: str) -> _Foreign | None:
    """Brotli and zstandard, where an interpreter or a library brings them."""
    engines: dict[str, tuple[tuple[str, str], ...]] = {
        "br": (("brotli", "Decompressor"), ("brotlicffi", "Decompressor")),
        "zstd": (("compression.zstd", "ZstdDecompressor"), ("zstandard", "ZstdDecompressor")),
    }
    for module, name in engines.get(encoding, ()):
        try:
            engine: Any = getattr(importlib.import_module(module), name)()
        except (ImportError, AttributeError):
            continue
        if module == "zstandard":
            engine = engine.decompressobj()
        step = getattr(engine, "process", None) or engine.decompress
        return _Foreign(step)
    return None


class Decoder:
    """Undoes a ``content-encoding``.

    ``readable`` turns false for good once the encoding is unknown, the data are
    broken, or they unfold past all reason.
    """

    __slots__ = ("_read", "_steps", "_written", "readable")

    def __init__(self, encodings: str) -> None:
        self._steps: list[Inflater | _Foreign] = []
        self._read = 0
        self._written = 0
        self.readable = True
        for encoding in reversed([e.strip().lower() for e in encodings.split(",")]):
            step: Inflater | _Foreign | None
            if encoding in ("", "identity", "aws-chunked"):
                continue
            if encoding in ("gzip", "x-gzip", "deflate"):
                step = Inflater(encoding.removeprefix("x-"))
            else:
                step = _foreign(encoding)
            if step is None or len(self._steps) >= 2:
                self.readable = False
                return
            self._steps.append(step)

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
