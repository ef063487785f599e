"""Every list of the API can be taken away as CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import pytest
from aiohttp import web

from proxy.admin.exports import EXPORTS, export, flat
from proxy.admin.guard import json_response
from proxy.admin.health import Component, State
from tests.unit.admin.conftest import at, bearer

ANSWERS = {
    "/api/v1/actions": {"actions": [{"id": "a", "series": {"dimension": "key", "value": "=k"}}]},
    "/api/v1/incidents/{id}": {
        "timeline": [{"ts": 1.0, "text": "opened"}],
        "explanation": {"contributors": {"model": [{"dimension": "model", "value": "m"}]}},
    },
    "/api/v1/overview": {
        "curve": {"times": [60.0, 120.0], "step_seconds": 60, "requests": [3, 4], "errors": [0, 1]}
    },
    "/api/v1/policy/trials/{id}": {
        "result": {"then": {"rules": [{"rule": "r", "calls": 2}], "samples": [{"id": "c"}]}}
    },
}


async def test_components_of_a_running_server(start, client) -> None:
    server = await start()
    server._deps.health.add("store", lambda: Component(State.DEGRADED, "slow", "look at it"))
    async with client.get(at(server, "/api/v1/health?format=csv"), headers=bearer()) as answer:
        assert answer.headers["Content-Disposition"] == 'attachment; filename="health.csv"'
        rows = list(csv.DictReader(io.StringIO(await answer.text())))
    assert {"name": "store", "state": "degraded", "detail": "slow", "mend": "look at it"} in rows
    parquet = pytest.importorskip("pyarrow.parquet")
    async with client.get(at(server, "/api/v1/health?format=parquet"), headers=bearer()) as answer:
        table = parquet.read_table(io.BytesIO(await answer.read())).to_pylist()
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    for bad in ("format=xml", "format=csv&table=nothing"):
        async with client.get(at(server, f"/api/v1/health?{bad}"), headers=bearer()) as answer:
            assert answer.status == 400
    async with client.get(at(server, "/api/v1/health?format=csv")) as answer:
        assert answer.status == 401


async def test_every_exported_address_is_served(start) -> None:
    server = await start()
    served = {r.canonical for r in server.app.router.resources()}
    assert EXPORTS.keys() <= served


@pytest.mark.parametrize(
    ("path", "table", "expected"),
    [
        ("/api/v1/actions", "actions", "id,dimension,value\r\na,key,'=k\r\n"),
        ("/api/v1/incidents/{id}", "timeline", "ts,text\r\n1.0,opened\r\n"),
        ("/api/v1/incidents/{id}", "contributors", "dimension,value\r\nmodel,m\r\n"),
        ("/api/v1/overview", "curve", "at,requests,errors\r\n60.0,3,0\r\n120.0,4,1\r\n"),
        ("/api/v1/policy/trials/{id}", "rules", "rule,calls\r\nr,2\r\n"),
        ("/api/v1/policy/trials/{id}", "refused", "id\r\nc\r\n"),
    ],
)
async def test_tables_are_taken_out_of_answers(path: str, table: str, expected: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return json_response(ANSWERS[path])

    resource = SimpleNamespace(canonical=path)
    request = SimpleNamespace(
        query={"format": "csv", "table": table},
        method="GET",
        match_info=SimpleNamespace(route=SimpleNamespace(resource=resource)),
    )
    response = await export(request, handler)
    assert response.text == expected


def test_a_series_is_two_columns() -> None:
    assert flat({"series": {"dimension": "key", "value": "k"}, "n": 1}) == {
        "n": 1,
        "dimension": "key",
        "value": "k",
    }
