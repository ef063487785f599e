"""Callers who want more than they may have (rows 76-90).

Owns: the attempts, and what they must not reach. Must never: use a secret that
could be anybody's.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.chaos.bystander import BLOCKED_AGENT
from tests.chaos.lab import Lab, chat, fault
from tests.chaos.receiver_lab import ReceiverLab
from tests.chaos.scenarios.bodies import STREAM, words
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk, event_stream
from tests.rig import ROOT, TOKEN, Raw, Received, Upstream, wait_for

CANARY = "CANARY7f3a91"
ALPHA = "token-of-alpha-0123456789"
SHARED = {
    "admin": {
        "tokens": [{"name": "ann", "token": ALPHA, "role": "operator", "projects": ["alpha"]}],
        "sign_in_attempts_per_minute": 10_000,
    },
    "limits": [
        {
            "name": "one-client",
            "by": ["client"],
            "match": {"agent": ["rotator"]},
            "requests": 20,
            "per": "hour",
        }
    ],
    "upstreams": {"dead": {"base_url": "http://127.0.0.1:9/v1"}},
}


def make_shared(folder: Path) -> Lab:
    """The group's lab: a token for one project, and a limit per client."""
    return Lab(folder, SHARED)


def admin(
    lab: Lab, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """A call of the admin port exactly as given; status and text."""
    link = http.client.HTTPConnection("127.0.0.1", lab.proxy.admin_port, timeout=15)
    with contextlib.closing(link):
        link.putrequest(method, path, skip_host=True)
        link.putheader("Host", f"127.0.0.1:{lab.proxy.admin_port}")
        for name, value in (headers or {}).items():
            link.putheader(name, value)
        link.endheaders()
        answer = link.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGES = (
    "/",
    "/metrics",
    "/api/v1/health",
    "/api/v1/info",
    "/api/v1/overview",
    "/api/v1/usage?by=key&window=1h",
    "/api/v1/series?by=key",
    "/api/v1/incidents?state=all",
    "/api/v1/outbox",
    "/api/v1/actions",
    "/api/v1/policy",
    "/api/v1/keys",
    "/api/v1/audit",
)


def own_alerts(folder: Path) -> Lab:
    hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:PORT/{CANARY}/hook"}
    return ReceiverLab(folder, [hook])


@fault(76, "a canary key in every place that takes one", tries=1, make=own_alerts)
def canary(lab: ReceiverLab) -> None:
    places: list[dict[str, Any]] = [
        {"headers": {"Authorization": f"Bearer sk-{CANARY}-a"}},
        {"headers": {"Authorization": f"Basic {CANARY}-b", "x-api-key": f"sk-ant-{CANARY}-c"}},
        {"headers": {"api-key": f"{CANARY}-d", "x-goog-api-key": f"{CANARY}-e"}},
        {"path": f"/v1/chat/completions?key={CANARY}-f"},
        {"headers": {"Cookie": f"session={CANARY}-g", "Proxy-Authorization": f"x {CANARY}-h"}},
        {"body": chat(f"my password is {CANARY}-i")},
        {"path": f"/nowhere/{CANARY}-j/x?api_key={CANARY}-k"},
        {"do": "reset", "headers": {"Authorization": f"Bearer sk-{CANARY}-l"}},
    ]
    for place in places:
        reply = lab.call(place.pop("body", None), **place)
        assert CANARY.encode() not in reply.body
    lab.open_incident("loud", path=f"/v1/chat/completions?key={CANARY}-m")
    wait_for(lambda: lab.receiver.posts, 60, "an alert")
    assert all(CANARY.encode() not in post.body for post in lab.receiver.posts)
    for page in PAGES:
        status, text = admin(lab, page, headers=BEARER)
        assert status == 200, page
        assert CANARY not in text, page
    lab.proxy.stop()
    for file in lab.folder.rglob("*"):
        if file.is_file() and file != lab.proxy.config:
            assert CANARY.encode() not in file.read_bytes(), f"in {file.name}"
    lab.replace()


@fault(77, "no, wrong, empty and doubled admin tokens")
def bad_tokens(lab: Lab) -> None:
    values = ("", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN} {TOKEN}", TOKEN)
    for value in (*values, f"Bearer {TOKEN},Bearer {TOKEN}", f"Basic {TOKEN}"):
        for path in ("/api/v1/health", "/api/v1/usage?by=total&window=1h", "/api/v1/nothing"):
            assert admin(lab, path, headers={"Authorization": value})[0] == 401, value
    assert admin(lab, "/api/v1/health")[0] == 401
    doubled = (
        f"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )
    with Raw(lab.proxy.admin_port) as raw:
        assert b" 401 " in raw.send(doubled.encode()).all().split(b"\r\n")[0]
    assert admin(lab, "/api/v1/health", headers=BEARER)[0] == 200


@fault(78, "admin paths on the data port")
def admin_on_data_port(lab: Lab) -> None:
    before = lab.script.unnamed
    for path in ("/api/v1/usage", "/api/v1/actions", "/metrics", "/health/readiness"):
        with Raw(lab.proxy.port) as raw:
            head = f"GET {path} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {TOKEN}\r\n"
            answer = raw.send(f"{head}Connection: close\r\n\r\n".encode()).all()
        assert answer.startswith(b"HTTP/1.1 404 "), (path, answer[:80])
    assert lab.script.unnamed == before


@fault(79, "a POST of another site")
def cross_site(lab: Lab) -> None:
    marks = ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"})
    for mark in marks:
        for path in ("/api/v1/session", "/api/v1/actions"):
            headers = BEARER | mark | {"Content-Length": "0"}
            status = admin(lab, path, method="POST", headers=headers)[0]
            assert status == 403, (mark, path, status)


IMAGE, MENTION = "<img src=x onerror=alert(1)>", "<!channel>"


def told(folder: Path) -> Lab:
    slack = {"name": "s", "type": "slack", "webhook_url": "http://127.0.0.1:PORT/slack"}
    return ReceiverLab(folder, [slack | {"mention_channel": False}])


def formatted(value: Any) -> list[str]:
    """The texts of a Slack message that Slack looks for markup in."""
    if isinstance(value, list):
        return [text for item in value for text in formatted(item)]
    if not isinstance(value, dict) or value.get("type") == "plain_text":
        return []
    own = [v for k, v in value.items() if k == "text" and isinstance(v, str)]
    return own + [text for item in value.values() for text in formatted(item)]


@fault(80, "markup and mentions in names", tries=1, make=told)
def markup(lab: ReceiverLab) -> None:
    lab.open_incident(IMAGE, body=chat(model=MENTION))
    lab.open_incident(MENTION)
    wait_for(lambda: len(lab.receiver.to("/slack")) >= 2, 60, "two messages")
    for post in lab.receiver.to("/slack"):
        text = " ".join(formatted(json.loads(post.body)))
        assert "<img" not in text and MENTION not in text, text
        assert "&lt;" in text
    for page in ("/", "/api/v1/incidents", "/api/v1/usage?by=agent&window=1h"):
        request = urllib.request.Request(lab.proxy.admin + page, headers=BEARER)
        with urllib.request.urlopen(request, timeout=15) as answer:
            html = "html" in (answer.headers["Content-Type"] or "")
            assert answer.headers["X-Content-Type-Options"] == "nosniff", page
            assert "script-src" in answer.headers.get("Content-Security-Policy", "") or (
                "default-src" in answer.headers.get("Content-Security-Policy", "")
            ), page
            assert not html or IMAGE.encode() not in answer.read()
    report = lab.folder / "report.html"
    command = [sys.executable, "-m", "proxy", "report", "--out", str(report)]
    command += ["--config", str(lab.proxy.config), "--data-dir", str(lab.proxy.data_dir)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert "<img" not in report.read_text() and "&lt;img" in report.read_text()


@fault(81, "ANSI codes and line breaks for the log")
def terminal_codes(lab: Lab) -> None:
    line = '\n{"event": "forged", "level": "error"}'
    escape = "\x1b[31mred\x1b[0m"
    lab.call(chat(model=f"gpt{escape}{line}"))
    lab.call(chat(user=f"u{escape}{line}", metadata={"agent": f"a{escape}{line}"}))
    lab.call(chat(), headers={"User-Agent": f"x{escape}"})
    lab.call(path="/dead/v1/chat/completions", headers={"X-Tokenweir-Agent": f"a{escape}"})
    lab.call(path="/dead/v1/%1b%5b31m%0aforged")
    log = lab.proxy.log.read_bytes()
    assert b"\x1b" not in log
    assert not [x for x in log.splitlines() if x.startswith(b'{"event": "forged"')]
    metrics = lab.proxy.text("/metrics")
    assert "\x1b" not in metrics and '\n{"event"' not in metrics


def many_calls(lab: Lab, names: list[str], batch: int = 200) -> None:
    """Calls of many agents on one connection, in batches."""
    with Raw(lab.proxy.port, timeout=60) as raw:
        for at in range(0, len(names), batch):
            part = names[at : at + batch]
            requests = [
                lab.raw_request(
                    method="GET", path="/v1/models", headers={"X-Tokenweir-Agent": name}
                )
                for name in part
            ]
            raw.send(b"".join(requests))
            seen = b""
            while seen.count(b"HTTP/1.1 ") < len(part):
                data = raw.socket.recv(1 << 20)
                assert data, "the connection ended"
                seen += data


def label_sets(lab: Lab) -> int:
    """How many agents a scrape names."""
    agents = set()
    for line in lab.proxy.text("/metrics").splitlines():
        _, label, rest = line.partition('gen_ai_agent_name="')
        if label:
            agents.add(rest.partition('"')[0])
    return len(agents)


def capped(folder: Path) -> Lab:
    return Lab(folder, {"server": {"max_tracked_names": 300}})


def many_names(lab: Lab, count: int, cap: int) -> None:
    number = lab.next_try().rpartition("-")[2]
    many_calls(lab, [f"agent-{number}-{n}" for n in range(count)])
    wait_for(lambda: "other" in {r["value"] for r in lab.proxy.usage("agent")}, 60, "`other`")
    rows = {r["value"]: r for r in lab.proxy.usage("agent")}
    # Who is blocked is told apart even where the cap was full before the first call.
    tracked = rows.keys() - {"other", BLOCKED_AGENT}
    assert 0 < len(tracked) <= cap, (len(tracked), sorted(tracked)[-3:])
    assert 0 < label_sets(lab) <= min(cap, 2000) + 3
    lab.block("late-comer")
    wait_for(lambda: lab.is_blocked("late-comer"), 10, "a name beyond the cap can be blocked")
    took = []
    for _ in range(3):
        began = time.monotonic()
        lab.proxy.text("/metrics")
        took.append(time.monotonic() - began)
    assert min(took) < 1.0, f"a scrape took {min(took):.2f} s"


@fault(82, "2,000 agent names at a cap of 300", tries=1, make=capped)
def names_capped(lab: Lab) -> None:
    many_names(lab, 2_000, 300)


@fault(82, "100,000 agent names", tries=1, slow=True, make=lambda folder: Lab(folder))
def all_the_names(lab: Lab) -> None:
    many_names(lab, 100_000, 10_000)


@fault(83, "names that join alike")
def joined_names(lab: Lab) -> None:
    def call(agent: str, model: str) -> None:
        assert lab.call(chat(model=model), headers={"X-Tokenweir-Agent": agent}).status == 200

    number = lab.next_try().rpartition("-")[2]
    call(f"a{number}_b", "c")
    call(f"a{number}", "b_c")
    call(f"a{number}", "b_c")

    def counted() -> list[int]:
        rows = lab.proxy.usage("agent_model")
        return sorted(r["requests"] for r in rows if r["value"].startswith(f"a{number}"))

    wait_for(lambda: counted() == [1, 2], 10, "two series")


def forbidden(folder: Path) -> Lab:
    names = {
        "loopback": "http://127.0.0.1:PORT/loopback",
        "decimal": "http://2130706433:PORT/decimal",
        "octal": "http://0177.0.0.1:PORT/octal",
        "short": "http://127.1:PORT/short",
        "mapped": "http://[::ffff:127.0.0.1]:PORT/mapped",
        "name": "http://localhost:PORT/name",
        "any": "http://0.0.0.0:PORT/any",
        "redirect": "http://127.0.0.2:PORT/redirect",
    }
    receivers = [{"name": n, "type": "webhook", "url": url} for n, url in names.items()]
    return ReceiverLab(folder, receivers, allow=("127.0.0.2/32",))


@fault(84, "alert URLs that lead inside", slow=True, tries=1, make=forbidden)
def inside_urls(lab: ReceiverLab) -> None:
    before = lab.server.connections
    lab.open_incident("loud")
    wait_for(lambda: len(lab.letters("dead")) >= 8, 30, "dead letters")
    assert all(letter["attempts"] <= 3 for letter in lab.letters("dead"))
    assert not lab.receiver.posts and lab.server.connections == before


@fault(85, "X-Upstream and api_base")
def routed_by_request(lab: Lab) -> None:
    async def evil(reader: Any, writer: Any) -> None:
        await reader.read(1)

    with Upstream(evil) as other:
        body = chat(api_base=other.url, base_url=other.url, upstream="evil")
        headers = {"X-Upstream": other.url, "X-Forwarded-Host": f"127.0.0.1:{other.port}"}
        headers |= {"X-Original-URL": other.url, "Forwarded": f"host=127.0.0.1:{other.port}"}
        assert lab.call(body, headers=headers).status == 200
        assert lab.script.last().header("host") == f"127.0.0.1:{lab.upstream.port}"
        assert other.connections == 0


@fault(86, "paths out of the static folder")
def traversal(lab: Lab) -> None:
    for path in (
        "/static/../admin-token",
        "/assets/../../auth.py",
        "/assets/..%2f..%2fauth.py",
        "/assets/%2e%2e/%2e%2e/auth.py",
        "/assets//etc/passwd",
    ):
        assert admin(lab, path, headers=BEARER)[0] == 404, path


@fault(87, "50 keys from one client", tries=1)
def rotating_keys(lab: Lab) -> None:
    statuses = []
    for number in range(50):
        headers = {"Authorization": f"Bearer sk-rotated-{number}", "X-Tokenweir-Agent": "rotator"}
        statuses.append(lab.call(headers=headers).status)
    assert statuses.count(200) == 20, statuses

    def flagged() -> list[Any]:
        found = lab.proxy.api("/api/v1/incidents")["incidents"]
        return [i for i in found if "one-client" in json.dumps(i)]

    wait_for(flagged, 60, "an incident")
    assert len(flagged()) == 1
    assert flagged()[0]["series"]["dimension"] == "client"


def few_names(folder: Path) -> Lab:
    limit = {"name": "strangers", "by": ["agent"], "requests": 3, "per": "hour"}
    limit["match"] = {"project": ["open"]}
    return Lab(folder, {"server": {"max_tracked_names": 20}, "limits": [limit]})


@fault(88, "rotating agent names", slow=True, tries=1, make=few_names)
def rotating_names(lab: Lab) -> None:
    passed = 0
    for number in range(80):
        headers = {"X-Tokenweir-Agent": f"new-{number}", "X-Tokenweir-Project": "open"}
        passed += lab.call(headers=headers).status == 200
    assert passed <= 20 + 3, f"{passed} passed: each new name had a limit of its own"


@behaviour("long-answer")
async def long_answer(request: Received, reader: Any, writer: Any) -> None:
    writer.write(STREAM_HEAD)
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            writer.write(chunk(event_stream(words(finish=False), done=False)))
            await writer.drain()
        await reader.read()


@fault(89, "hanging up before the usage is told")
def hang_up(lab: Lab) -> None:
    with Raw(lab.proxy.port) as raw:
        raw.send(lab.raw_request(STREAM, do="long-answer"))
        seen = b""
        while seen.count(b"deux") < 200:
            seen += raw.socket.recv(65_536)
    record = lab.last()
    assert record["usage_source"] == "estimated"
    assert record["output_tokens"] >= 200 and record["cost_nano_usd"] > 0, record


@fault(90, "a project's token asking for another project")
def other_project(lab: Lab) -> None:
    for project in ("alpha", "beta"):
        lab.call(headers={"X-Tokenweir-Project": project})
    seen = {"alpha", "beta"}
    wait_for(lambda: seen <= {r["value"] for r in lab.proxy.usage("project")}, 10, "both counted")
    ann = {"Authorization": f"Bearer {ALPHA}"}
    usage = "/api/v1/usage?by=project&window=1h"
    status, text = admin(lab, usage, headers=ann)
    assert status == 200 and "alpha" in text and "beta" not in text
    answers = {admin(lab, f"{usage}&value={p}", headers=ann) for p in ("beta", "never-was")}
    assert len(answers) == 1 and next(iter(answers))[0] == 404
    assert admin(lab, "/api/v1/outbox", headers=ann)[0] == 404
    block = lab.proxy.api("/api/v1/actions")["actions"][0]["id"]
    delete = {"method": "DELETE", "headers": ann}
    assert admin(lab, f"/api/v1/actions/{block}", **delete)[0] == 404
    assert lab.is_blocked()
