"""A token limited to a project learns nothing of another one, on any path of the API.

Everything of the other project carries one word, and no answer may hold it.
"""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from proxy.admin.app import api_document
from tests.conftest import Recorder
from tests.e2e.test_runaway import STUCK
from tests.rig import TOKEN, Proxy, Raw, Upstream, running_proxy, wait_for

#: In every name of the other project.
WORD = "zebra"
VIEWER = "viewer-of-the-web-project-0001"
OPERATOR = "operator-of-the-web-project-01"
ADMIN = "admin-of-the-web-project-00001"
DOCUMENT = api_document("")


@dataclass
class Herd:
    """A proxy with two projects, and the ids of what belongs to the other one."""

    proxy: Proxy
    ids: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, token: str = VIEWER, method: str = "GET", body: object = None
    ) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            self.proxy.admin + path, data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()


def call(proxy: Proxy, name: str, messages: list[dict[str, Any]]) -> None:
    """A call of an agent, a user and a session of a project of that name."""
    headers = {
        "Authorization": f"Bearer sk-{name}",
        "Content-Type": "application/json",
        "x-tokenweir-project": name,
        "x-tokenweir-user": f"user-{name}",
        "x-tokenweir-session": f"session-{name}",
        "x-tokenweir-tags": f"team=team-{name}",
    }
    body = {"model": f"gpt-4o-mini-{name}", "messages": messages}
    request = urllib.request.Request(
        f"{proxy.url}/@agent-{name}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers=headers,
    )
    try:
        urllib.request.urlopen(request, timeout=30).read()
    except urllib.error.HTTPError as refused:
        refused.read()


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    limited = [("v", VIEWER, "viewer"), ("o", OPERATOR, "operator"), ("a", ADMIN, "admin")]
    config = {
        "admin": {
            "tokens": [
                {"name": name, "token": token, "role": role, "projects": ["web"]}
                for name, token, role in limited
            ]
        },
        "alerts": {
            "receivers": [{"name": "hook", "type": "webhook", "url": "http://127.0.0.1:9/x"}],
            "route": {"receiver": "hook"},
        },
        "budgets": [{"name": "each", "by": ["project"], "amount_usd": 100, "per": "month"}],
        "limits": [
            {"name": f"{WORD}s", "by": ["agent"], "match": {"agent": [f"agent-{WORD}"]},
             "requests": 100_000, "per": "day", "mode": "shadow"}
        ],
    }  # fmt: skip
    with Upstream(Recorder()) as upstream:
        config["upstreams"] = {"openai": {"base_url": upstream.url}}
        with running_proxy(tmp_path_factory.mktemp("scope"), config) as proxy:
            herd = Herd(proxy)
            for name in ("web", WORD):
                for _ in range(60):
                    call(proxy, name, STUCK)
            fill(herd)
            yield herd


def fill(herd: Herd) -> None:
    """One of everything for the other project, and an incident of each."""
    proxy = herd.proxy

    def incident(name: str) -> str | None:
        found = proxy.api("/api/v1/incidents")["incidents"]
        return next(
            (i["id"] for i in found if i["fingerprint"] == f"loop:agent:agent-{name}"
             and i["projects"] == [name]), None,
        )  # fmt: skip

    herd.ids["incidents"] = wait_for(lambda: incident(WORD), 60, "the other's incident")
    wait_for(lambda: incident("web"), 60, "our incident")
    silence = {"matchers": [f'agent="agent-{WORD}"'], "seconds": 600, "project": WORD}
    herd.ids["silences"] = proxy.api("/api/v1/silences", "POST", silence)["id"]
    herd.ids["maintenance"] = proxy.api("/api/v1/maintenance", "POST", silence)["id"]
    key = proxy.api("/api/v1/keys", "POST", {"name": f"key-{WORD}", "project": WORD})
    herd.ids["keys"] = key["id"]
    action = {"kind": "throttle", "dimension": "project", "value": WORD, "rate_per_second": 5,
              "seconds": 600, "reason": f"too many {WORD}s"}  # fmt: skip
    herd.ids["actions"] = proxy.api("/api/v1/actions", "POST", action)["id"]
    dead = wait_for(lambda: proxy.api("/api/v1/outbox")["dead"], 30, "a dead letter")
    herd.ids["outbox"] = dead[0]["id"]


def questions(path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Every combination of a path's closed parameters, and the other's names in the open ones."""
    closed, opened = [], []
    for one in operation.get("parameters", []):
        if one["in"] != "query":
            continue
        if "enum" in one["schema"]:
            words = one["schema"]["enum"]
            few = words if one["name"] in ("by", "format", "state") else words[:1]
            closed.append([f"{one['name']}={word}" for word in few])
        elif one["schema"].get("type") == "string":
            opened.append(one["name"])
    for chosen in product(*closed):
        yield f"{path}?{'&'.join(chosen)}"
        for name in opened:
            for word in (WORD, f"agent-{WORD}"):
                yield f"{path}?{'&'.join([*chosen, f'{name}={word}'])}"
        if "dimension" in opened:
            yield f"{path}?dimension=agent&value=agent-{WORD}"
            yield f"{path}?dimension=project&value={WORD}"


GETS = sorted(path for path, item in DOCUMENT["paths"].items() if "get" in item)


@pytest.mark.parametrize("path", [p for p in GETS if p != "/api/v1/events"])
def test_no_answer_holds_anything_of_another_project(herd: Herd, path: str) -> None:
    kind = path.removeprefix("/api/v1/").split("/")[0]
    actual = path.replace("{id}", herd.ids.get(kind, "x"))
    for question in questions(actual, DOCUMENT["paths"][path]["get"]):
        status, body = herd.ask(question)
        assert status < 500 or status == 501, (question, body[:300])
        assert WORD.encode() not in body, (question, body[:600])
        if "{id}" in path:
            assert status == 404, question


def test_what_is_ones_own_is_shown(herd: Herd) -> None:
    """So that the test above can't pass on empty answers."""
    for path, wanted in (
        ("/api/v1/incidents", b"agent-web"),
        ("/api/v1/incidents?state=all&format=csv", b"agent-web"),
        ("/api/v1/usage?by=project", b'"web"'),
        ("/api/v1/series?by=project", b'"web"'),
        ("/api/v1/series/detail?by=project&value=web", b'"web"'),
        ("/api/v1/budgets", b'"web"'),
        ("/api/v1/forecast", b'"state"'),
    ):
        status, body = herd.ask(path)
        assert status == 200, path
        assert wanted in body, (path, body[:500])
    days = json.loads(herd.ask("/billing/anomalies/trends")[1])["daily_usage"]
    assert days[-1]["llm_calls"] > 0
    assert WORD.encode() in herd.ask("/api/v1/incidents", TOKEN)[1]


@pytest.mark.parametrize("token", [OPERATOR, ADMIN])
def test_nothing_of_another_project_can_be_changed(herd: Herd, token: str) -> None:
    before = standing(herd)
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if method == "get" or "{id}" not in path:
                continue
            kind = path.removeprefix("/api/v1/").split("/")[0]
            status, body = herd.ask(path.replace("{id}", herd.ids[kind]), token, method.upper(), {})
            assert status in (403, 404), (method, path, operation["summary"], body)
            assert WORD.encode() not in body
    for path, body in (
        ("/api/v1/silences", {"matchers": ["tier=x"], "project": WORD}),
        ("/api/v1/maintenance", {"matchers": ["tier=x"], "project": WORD}),
        ("/api/v1/keys", {"name": "n", "project": WORD}),
        ("/api/v1/keys", {"name": "n"}),
        ("/api/v1/actions", {"kind": "block", "dimension": "project", "value": WORD}),
        ("/api/v1/actions", {"kind": "block", "dimension": "agent", "value": f"agent-{WORD}"}),
        ("/api/v1/actions", {"kind": "block", "dimension": "total", "value": ""}),
    ):
        status, told = herd.ask(path, token, "POST", body)
        assert status in (403, 404), (path, body, told)
    assert standing(herd) == before


def standing(herd: Herd) -> Any:
    """What an operation on the other project would have changed."""
    proxy = herd.proxy
    return (
        [i["state"] for i in proxy.api("/api/v1/incidents?state=all")["incidents"]],
        sorted(s["ends_at"] for s in proxy.api("/api/v1/silences")["silences"]),
        sorted(w["ends_at"] for w in proxy.api("/api/v1/maintenance")["windows"]),
        sorted(k["id"] for k in proxy.api("/api/v1/keys")["keys"]),
        [a["id"] for a in proxy.api("/api/v1/actions")["actions"] if a["origin"] == "manual"],
    )


def test_the_stream_tells_only_of_ones_own(herd: Herd) -> None:
    link = Raw(herd.proxy.admin_port, timeout=30)
    head = f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {VIEWER}"
    heard = link.send(f"{head}\r\n\r\n".encode()).until(b"event: reset")
    for name in (WORD, "web"):
        (one,) = [
            i for i in herd.proxy.api("/api/v1/incidents")["incidents"]
            if i["fingerprint"] == f"loop:agent:agent-{name}"
        ]  # fmt: skip
        herd.proxy.api(f"/api/v1/incidents/{one['id']}/acknowledge", "POST", {"note": name})
        block = {"kind": "block", "dimension": "project", "value": name, "seconds": 1}
        herd.proxy.api("/api/v1/actions", "POST", block)
    heard += link.until(b"agent-web")
    link.socket.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        heard += link.all()
    assert WORD.encode() not in heard
