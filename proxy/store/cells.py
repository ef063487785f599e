"""Many series' buckets at once, unpacked into columns.

Owns: what the reply of ``lua/cells.lua`` means. Must never: do I/O, or take more
than a few passes over a reply, whose buckets may be hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from proxy.store.series import WIDTH

Ints = npt.NDArray[np.int64]

# MessagePack's first byte (https://github.com/msgpack/msgpack/blob/master/spec.md):
# how many bytes of a number follow it; those not named here hold it themselves.
_FOLLOWING = np.zeros(256, np.int64)
for _code, _size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
    _FOLLOWING[_code] = _size
_FLOAT = 0xCB
_SIGNED_FROM = 0xD0
_NEGATIVE_FROM = 0xE0
_ARRAY, _ARRAY_MASK = 0x90, 0xF0


class Cells(NamedTuple):
    """Buckets that hold something: of which series and which bucket, as asked, from 0.

    ``counts`` has a row per bucket, with the columns of :data:`proxy.store.series.COUNTS`.
    """

    series: Ints
    bucket: Ints
    counts: Ints


def unpack(reply: Sequence[bytes]) -> Cells:
    """The reply of one call of the script."""
    held, numbers, lengths, cells = reply
    each = np.frombuffer(held, "<u2")
    sizes = np.frombuffer(lengths, np.uint8).astype(np.int64)
    return Cells(
        np.repeat(np.arange(len(each)), each),
        np.frombuffer(numbers, "<u2").astype(np.int64),
        unpack_counts(cells, sizes),
    )


def unpack_counts(cells: bytes, sizes: Ints) -> Ints:
    """MessagePack arrays of whole numbers, one after another, as rows.

    Parameters
    ----------
    cells
        The arrays' bytes.
    sizes
        How many bytes each has.

    Returns
    -------
    ndarray
        (arrays, :data:`WIDTH`); columns that an array lacks are zero, further ones
        are left out.
    """
    data = np.frombuffer(cells + bytes(9), np.uint8)
    following = np.lib.stride_tricks.sliding_window_view(data, 8)
    at = np.cumsum(sizes) - sizes
    headers = data[at] if len(at) else np.zeros(0, np.uint8)
    lengths = np.where(headers & _ARRAY_MASK == _ARRAY, headers & ~np.uint8(_ARRAY_MASK), 0)
    found = np.zeros((len(sizes), WIDTH), np.int64)
    at = at + 1
    for column in range(WIDTH):
        rows = np.flatnonzero(lengths > column)
        if not len(rows):
            break
        here = at[rows]
        codes = data[here]
        sizes_here = _FOLLOWING[codes]
        found[rows, column] = _numbers(codes, sizes_here, following[here + 1])
        at[rows] = here + 1 + sizes_here
    return found


def _numbers(codes: npt.NDArray[np.uint8], sizes: Ints, after: npt.NDArray[np.uint8]) -> Ints:
    """Numbers from their first bytes and the eight bytes after each."""
    whole = np.ascontiguousarray(after)
    shift = 64 - 8 * np.maximum(sizes, 1)
    signed = whole.view(">i8")[:, 0].astype(np.int64) >> shift
    unsigned = whole.view(">u8")[:, 0].astype(np.uint64) >> shift.astype(np.uint64)
    numbers = np.where(codes >= _SIGNED_FROM, signed, unsigned.astype(np.int64))
    own = codes.astype(np.int64)
    own = np.where(codes >= _NEGATIVE_FROM, own - 256, own)
    numbers = np.where(sizes == 0, own, numbers)
    floats = codes == _FLOAT
    if floats.any():
        numbers[floats] = whole.view(">f8")[floats, 0].astype(np.int64)
    return numbers
