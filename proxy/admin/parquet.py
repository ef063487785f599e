"""Rows as a Parquet file: one row group, plain encoding, no compression.

Owns: the bytes, after the format's own description
(https://github.com/apache/parquet-format: README.md, Encodings.md and
src/main/thrift/parquet.thrift). Must never: need a library of many megabytes for a
table of a few hundred rows.

Columns are whole numbers (64 bits), floats, booleans or text, and every one may be
null; what has no such type is text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

_MAGIC: Final = b"PAR1"
_BOOLEAN, _INT64, _DOUBLE, _BYTE_ARRAY = 0, 2, 5, 6
_PLAIN, _RLE = 0, 3
_OPTIONAL, _UTF8, _UNCOMPRESSED, _DATA_PAGE = 1, 0, 0, 0
#: Thrift's compact protocol: its words for types of fields.
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_MOST_INT64: Final = 2**63


def write(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A file of columns of the same length; ``None`` is null.

    >>> write({"calls": [1, None]})[:4] == write({})[-4:] == b"PAR1"
    True
    """
    out = bytearray(_MAGIC)
    rows = len(next(iter(columns.values()), ()))
    schema = [_struct((4, _BINARY, "schema"), (5, _I32, len(columns)))]
    chunks = []
    for name, values in columns.items():
        kind = _kind(values)
        text = () if kind != _BYTE_ARRAY else ((6, _I32, _UTF8), (10, _STRUCT, _STRING))
        schema.append(_struct((1, _I32, kind), (3, _I32, _OPTIONAL), (4, _BINARY, name), *text))
        page = _page(kind, values)
        about = _struct(
            (1, _I32, kind),
            (2, _LIST, (_I32, [_PLAIN, _RLE])),
            (3, _LIST, (_BINARY, [name])),
            (4, _I32, _UNCOMPRESSED),
            (5, _I64, rows),
            (6, _I64, len(page)),
            (7, _I64, len(page)),
            (9, _I64, len(out)),
        )
        chunks.append(_struct((2, _I64, len(out)), (3, _STRUCT, about)))
        out += page
    group = _struct(
        (1, _LIST, (_STRUCT, chunks)), (2, _I64, len(out) - len(_MAGIC)), (3, _I64, rows)
    )
    footer = _struct(
        (1, _I32, 1),
        (2, _LIST, (_STRUCT, schema)),
        (3, _I64, rows),
        (4, _LIST, (_STRUCT, [group] if columns else [])),
        (6, _BINARY, "tokenweir"),
    )
    return bytes(out + footer + struct.pack("<I", len(footer)) + _MAGIC)


def _kind(values: Iterable[Any]) -> int:
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return _BOOLEAN
    if types == {int} and all(-_MOST_INT64 <= v < _MOST_INT64 for v in values if v is not None):
        return _INT64
    if types and types <= {int, float}:
        return _DOUBLE
    return _BYTE_ARRAY


def _page(kind: int, values: Sequence[Any]) -> bytes:
    """A column's only page: its header, which rows are not null, and these rows' values."""
    there = np.array([value is not None for value in values], bool)
    known = [value for value in values if value is not None]
    bits = np.packbits(there, bitorder="little").tobytes()
    levels = _varint(len(bits) << 1 | 1) + bits  # one bit-packed run, eight rows a byte
    body = struct.pack("<I", len(levels)) + levels + _plain(kind, known)
    header = _struct(
        (1, _I32, _DATA_PAGE),
        (2, _I32, len(body)),
        (3, _I32, len(body)),
        (5, _STRUCT, _struct(
            (1, _I32, len(values)), (2, _I32, _PLAIN), (3, _I32, _RLE), (4, _I32, _RLE)
        )),
    )  # fmt: skip
    return header + body


def _plain(kind: int, known: Sequence[Any]) -> bytes:
    if kind == _BOOLEAN:
        return np.packbits(np.array(known, bool), bitorder="little").tobytes()
    if kind == _INT64:
        return np.array(known, "<i8").tobytes()
    if kind == _DOUBLE:
        return np.array(known, "<f8").tobytes()
    texts = [str(value).encode("utf-8", "replace") for value in known]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


# ---- Thrift's compact protocol ----


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _struct(*fields: tuple[int, int, Any]) -> bytes:
    """Fields as (number, type, value), their numbers rising."""
    found, before = bytearray(), 0
    for number, kind, value in fields:
        found.append(number - before << 4 | kind)
        found += _value(kind, value)
        before = number
    return bytes(found) + b"\0"


def _value(kind: int, value: Any) -> bytes:
    if kind in (_I32, _I64):
        return _varint(value << 1 if value >= 0 else ~(value << 1))
    if kind == _BINARY:
        text = value.encode("utf-8", "replace")
        return _varint(len(text)) + bytes(text)
    if kind == _LIST:
        of, items = value
        head = bytes([len(items) << 4 | of]) if len(items) < 15 else b""
        head = head or bytes([0xF0 | of]) + _varint(len(items))
        return head + b"".join(_value(of, item) for item in items)
    return bytes(value)


_STRING: Final = _struct((1, _STRUCT, _struct()))
