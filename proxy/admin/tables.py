"""Rows as people take them away: JSON, CSV or Parquet.

Owns: the three forms of a table. Must never: let a value be read as a formula
by a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from proxy.admin import parquet
from proxy.admin.guard import json_response

FORMATS = ("json", "csv", "parquet")


def table_response(
    request: web.Request, name: str, rows: Sequence[Mapping[str, Any]], envelope: dict[str, Any]
) -> web.Response:
    """The rows in the form that ``format`` asks for.

    Parameters
    ----------
    name
        Name of the downloaded file, without its ending.
    envelope
        What stands beside ``rows`` in the JSON form.

    Raises
    ------
    aiohttp.web.HTTPBadRequest
        For an unknown form.
    """
    form = request.query.get("format", "json")
    if form == "json":
        return json_response({**envelope, "rows": rows})
    if form == "csv":
        return _download(to_csv(rows).encode(), "text/csv; charset=utf-8", f"{name}.csv")
    if form == "parquet":
        return _download(to_parquet(rows), "application/vnd.apache.parquet", f"{name}.parquet")
    raise web.HTTPBadRequest(text=f"format must be one of {', '.join(FORMATS)}")


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated, one header line; nested values as JSON.

    >>> to_csv([{"value": "=1+1", "requests": 2}])
    "value,requests\\r\\n'=1+1,2\\r\\n"
    """
    out = io.StringIO()
    columns = _columns(rows)
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return out.getvalue()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All that any row has, in the order of their first sight."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> Any:
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A Parquet file; nested values as JSON text."""
    return parquet.write({name: [_plain(row.get(name)) for row in rows] for name in _columns(rows)})


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (Mapping, list, tuple)) else value


def _download(body: bytes, content_type: str, name: str) -> web.Response:
    return web.Response(
        body=body,
        headers={
            "Content-Type": content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        },
    )
