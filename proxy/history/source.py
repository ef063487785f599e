"""Files of any size and container, read record by record.

Owns: opening (plain, gzip, Parquet, standard input), telling CSV from JSON lines
from JSON documents, and the count of bytes for a progress bar. Must never: hold
more than one record (and one read-ahead block) in memory, or interpret a record.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import orjson

from proxy.history.rows import Rejected

_BLOCK_CHARS: Final = 1 << 20
_RECORD_LIMIT_CHARS: Final = 1 << 24
_PAGE_MEMBERS: Final = frozenset({"data", "observations", "requests"})
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"

Record = tuple[int, Mapping[str, Any]]


class SourceError(Exception):
    """The file as a whole can't be read; the message says what to do."""


class Source:
    """One file, iterated as ``(line or record number, mapping)``.

    ``size_bytes`` is ``None`` for standard input; :attr:`position_bytes` tells
    how much of the file on disk has been consumed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes: int | None = None
        self._raw: IO[bytes] | None = None
        self._row_groups = (0, 1)

    @property
    def name(self) -> str:
        return "standard input" if str(self.path) == "-" else str(self.path)

    @property
    def position_bytes(self) -> int:
        if self.size_bytes is None or self._raw is None:
            return 0
        done, groups = self._row_groups
        if self._raw.closed:
            return self.size_bytes
        if done:
            return self.size_bytes * done // groups
        return min(self._raw.tell(), self.size_bytes)

    def records(self) -> Iterator[Record | Rejected]:
        """Every record of the file; what can't be parsed comes as Rejected."""
        raw = self._open()
        try:
            head = raw.peek(4)[:4] if isinstance(raw, io.BufferedReader) else b""
            if head.startswith(_PARQUET):
                yield from self._parquet()
                return
            data: IO[bytes] = raw
            if head.startswith(_GZIP):
                data = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18)
            yield from _records_of(data)
        except (EOFError, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name}: the compressed file is damaged: {error}") from error
        finally:
            if str(self.path) != "-":
                raw.close()

    def _open(self) -> IO[bytes]:
        if str(self.path) == "-":
            return sys.stdin.buffer
        try:
            self.size_bytes = self.path.stat().st_size
            self._raw = self.path.open("rb", buffering=1 << 18)
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror or error}") from error
        return self._raw

    def _parquet(self) -> Iterator[Record | Rejected]:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise SourceError(
                f"{self.name} is a Parquet file: install the extra, tokenweir[parquet]"
            ) from error
        file = parquet.ParquetFile(self.path)
        number, groups = 0, max(1, file.num_row_groups)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=4096, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
            self._row_groups = (group + 1, groups)


def _records_of(data: IO[bytes]) -> Iterator[Record | Rejected]:
    first = data.readline(_BLOCK_CHARS)
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    while first and not start:
        first = data.readline(_BLOCK_CHARS)
        start = first.lstrip()
    if not start:
        return
    if start[:1] in b"{[":
        parsed = _line_object(start)
        if parsed is not None and not is_page(parsed):
            yield 1, parsed
            yield from _json_lines(data)
        else:
            yield from _json_documents(start.decode("utf-8", "replace"), data)
    else:
        yield from _csv_rows(first.removeprefix(b"\xef\xbb\xbf"), data)


def _line_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def is_page(value: Mapping[str, Any]) -> bool:
    """Whether an object is one page of an API's list, not a record."""
    return isinstance(value.get("data"), list) and (
        len(value) <= 4 or not {"has_more", "meta", "total", "next_page"}.isdisjoint(value)
    )


def _json_lines(data: IO[bytes]) -> Iterator[Record | Rejected]:
    for number, line in enumerate(data, start=2):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Rejected(number, f"not JSON: {error}", line[:200].decode("utf-8", "replace"))
            continue
        if not isinstance(value, dict):
            yield Rejected(number, "not a JSON object", value)
        elif is_page(value):
            for item in value["data"]:
                if isinstance(item, dict):
                    yield number, item
                else:
                    yield Rejected(number, "not a JSON object", item)
        else:
            yield number, value


def _csv_rows(first: bytes, data: IO[bytes]) -> Iterator[Record | Rejected]:
    header_line = first.decode("utf-8", "replace")
    delimiter = max(",;\t|", key=header_line.count)
    csv.field_size_limit(_RECORD_LIMIT_CHARS)
    try:
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
    except csv.Error as error:
        raise SourceError(f"neither JSON nor a CSV header: {error}") from None
    if len(set(header)) != len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise SourceError(f"the header names {', '.join(map(repr, twice))} twice")
    reader = csv.reader(
        io.TextIOWrapper(data, encoding="utf-8", errors="replace", newline=""),
        delimiter=delimiter,
    )
    width = len(header)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Rejected(reader.line_num + 1, f"not CSV: {error}")
            continue
        if len(cells) == width:
            yield reader.line_num + 1, dict(zip(header, cells, strict=True))
        elif cells:
            yield Rejected(
                reader.line_num + 1, f"{len(cells)} cells under {width} columns", cells[:64]
            )


class _Text:
    """A JSON text with a cursor, read on in blocks that double while needed."""

    def __init__(self, start: str, data: IO[bytes]) -> None:
        self._decode = json.JSONDecoder().raw_decode
        self._reader = io.TextIOWrapper(data, encoding="utf-8", errors="replace", newline="")
        self.buffer, self.at, self.ended = start, 0, False

    def more(self) -> bool:
        wanted = max(_BLOCK_CHARS, len(self.buffer) - self.at)
        block = self._reader.read(wanted)
        self.buffer, self.at = self.buffer[self.at :] + block, 0
        self.ended = not block
        return bool(block)

    def peek(self) -> str:
        """The next character that is not white space, or an empty text."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in " \t\r\n,:":
                self.at += 1
            if self.at < len(self.buffer) or not self.more():
                return self.buffer[self.at : self.at + 1]

    def value(self) -> Any:
        """The next whole JSON value; raises ValueError where there is none."""
        self.peek()
        while True:
            try:
                found, end = self._decode(self.buffer, self.at)
            except ValueError:
                if len(self.buffer) - self.at > _RECORD_LIMIT_CHARS or not self.more():
                    raise
                continue
            if end == len(self.buffer) and not self.ended and self.more():
                continue
            self.at = end
            return found


def _json_documents(start: str, data: IO[bytes]) -> Iterator[Record | Rejected]:
    """Records of arrays, pages and single objects, one after the other."""
    reading = _Text(start, data)
    number = 0
    try:
        while (opening := reading.peek()) != "":
            if opening == "[":
                items = _elements(reading)
            elif opening == "{":
                items = _page(reading)
            else:
                raise ValueError("expected an object or an array")
            for item in items:
                number += 1
                if isinstance(item, dict):
                    yield number, item
                else:
                    yield Rejected(number, "not a JSON object", item)
    except (ValueError, RecursionError) as error:
        yield Rejected(number + 1, f"not JSON from here on: {error}", reading.buffer[:200])


def _elements(reading: _Text) -> Iterator[Any]:
    reading.at += 1
    while (char := reading.peek()) != "]":
        if not char:
            raise ValueError("the array is not closed")
        yield reading.value()
    reading.at += 1


def _page(reading: _Text) -> Iterator[Any]:
    """The elements of a page's list, or the object itself where it has none."""
    reading.at += 1
    members: dict[str, Any] = {}
    listed = False
    while (char := reading.peek()) != "}":
        if char != '"':
            raise ValueError("expected a member name")
        name = reading.value()
        if reading.peek() == "[" and name in _PAGE_MEMBERS and not listed:
            listed = True
            yield from _elements(reading)
        else:
            members[name] = reading.value()
    reading.at += 1
    if not listed:
        yield members
