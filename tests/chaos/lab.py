"""One fault at a time: a real proxy, clients that keep their own books, and the audit.

Owns: what a fault is, and how loss is measured: what upstreams saw against the
journal, and the journal against the store. Must never: let a fault pass that
lost, doubled or forgot something.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.bystander import BLOCKED_AGENT
from tests.chaos.scripted import Script
from tests.rig import Proxy, Raw, Upstream, end_store, start_proxy, wait_for

#: No automatic action may touch these tests' calls; what a person blocked stays blocked.
PROTECT = [{"match": {"total": ["*"]}}]
TRY_HEADER = "x-try"
_REFUSED = {"throttle", "block", "unavailable", "forbidden", "disable_key"}


@dataclass
class Reply:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Fault:
    """A row of the list of faults, and how to do it.

    ``kills`` says that it ends a proxy at once: a call that its client did not see
    answered then needs no record.
    """

    row: int
    name: str
    group: str
    run: Callable[[Lab], None]
    tries: int = 5
    slow: bool = False
    needs: tuple[str, ...] = ()
    make: Callable[[Path], Lab] | None = None
    recount: bool = True
    kills: bool = False


FAULTS: list[Fault] = []


def fault(row: int, name: str, **more: Any) -> Callable[[Callable[[Lab], None]], Any]:
    """Register a scenario: it does one try, and asserts what must come out."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        group = run.__module__.rpartition(".")[2]
        FAULTS.append(Fault(row, name, group, run, **more))
        return run

    return register


class MissingError(Exception):
    """This machine lacks what a fault needs."""


@dataclass
class Outcome:
    """What was measured of one fault."""

    row: int
    name: str
    tries: int
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    forgotten_blocks: int = 0
    added_p99_ms: float | None = None
    why: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return self.survived == self.tries and not (
            self.lost or self.doubled or self.forgotten_blocks
        )


class Lab:
    """A proxy, its upstream, and everything that clients sent through it."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any] | None = None,
        *,
        data_root: Path | None = None,
        **how: Any,
    ) -> None:
        self.folder = folder
        self._data_root = data_root or folder
        self.answered: set[str] = set()
        self.script = Script(TRY_HEADER)
        self._stack = contextlib.ExitStack()
        self.upstream = self._stack.enter_context(Upstream(self.script))
        self.settings = {
            "protect": PROTECT,
            "upstreams": {
                "openai": {"base_url": self.upstream.url + "/v1"},
                "anthropic": {"base_url": self.upstream.url + "/v1", "wire": "anthropic"},
            },
        }
        for name, value in (settings or {}).items():
            if name == "upstreams":
                value = self.settings["upstreams"] | value  # type: ignore[operator]
            self.settings[name] = value
        self._how = how
        self._tries = 0
        self._prefix = ""
        self.proxies: list[Proxy] = []
        self._folders: set[Path] = set()
        self.proxy = self.start()

    # -- life ----------------------------------------------------------------------

    def start(self, name: str = "0", **how: Any) -> Proxy:
        """Start a proxy (a further one where its name differs) over its own data."""
        data = self._data_root / f"data-{name}"
        self._folders.add(data)
        proxy = start_proxy(
            self.folder / f"proxy-{name}",
            how.pop("settings", self.settings),
            **{"data_dir": data, "ready_seconds": 180, **self._how, **how},
        )
        self.proxies.append(proxy)
        return proxy

    def replace(self, proxy: Proxy | None = None, name: str = "0", **how: Any) -> Proxy:
        """Start the proxy of a name again, over the same data."""
        self.proxies.remove(proxy or self.proxy)
        new = self.start(name, **how)
        if proxy is None or proxy is self.proxy:
            self.proxy = new
        return new

    def add_upstreams(self, **upstreams: dict[str, Any]) -> None:
        """Serve further upstreams, which may name the lab's own address."""
        self.settings["upstreams"] |= upstreams  # type: ignore[operator]
        self.proxy.stop()
        self.replace()

    def enter(self, context: Any) -> Any:
        """Keep something open for as long as the lab."""
        return self._stack.enter_context(context)

    def defer(self, function: Callable[..., Any], *values: Any) -> None:
        """Do something when the lab closes."""
        self._stack.callback(function, *values)

    def close(self) -> None:
        for proxy in self.proxies:
            with contextlib.suppress(Exception):
                proxy.stop(timeout=10)
        for data in self._folders:
            end_store(data)
        self._stack.close()

    # -- clients -------------------------------------------------------------------

    def begin(self, prefix: str) -> None:
        """The calls from here on belong to this fault."""
        self._prefix = prefix

    def next_try(self) -> str:
        self._tries += 1
        return f"{self._prefix}-{self._tries}"

    def raw_request(
        self,
        body: object = None,
        *,
        do: str = "",
        method: str = "POST",
        path: str = "/v1/chat/completions",
        headers: dict[str, str] | None = None,
        framing: bool = True,
        name: str | None = None,
    ) -> bytes:
        """The bytes of one call, named so that it can be found in every book."""
        if body is None and method == "POST":
            body = chat()
        data = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        name = name or self.next_try()
        fields = {
            "Host": "proxy",
            "Authorization": "Bearer sk-chaos-0123456789",
            "Content-Type": "application/json",
            "X-Tokenweir-Agent": "chaos",
            "X-Tokenweir-Session": name,
            TRY_HEADER: name,
        }
        if do:
            fields["x-do"] = do
        if framing and method == "POST":
            fields["Content-Length"] = str(len(data))
        fields.update(headers or {})
        head = "".join(f"{n}: {v}\r\n" for n, v in fields.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data

    def call(
        self, body: object = None, *, port: int | None = None, timeout: float = 15, **request: Any
    ) -> Reply:
        """One call on a connection of its own."""
        name = request.pop("name", None) or self.next_try()
        with Raw(port or self.proxy.port, timeout) as raw:
            raw.send(self.raw_request(body, name=name, **request))
            reply = read_reply(raw.socket, request.get("method", "POST"))
        if reply.whole:
            self.answered.add(name)
        return reply

    # -- what it says of itself ----------------------------------------------------

    def observation(self, name: str, proxy: Proxy | None = None) -> dict[str, Any]:
        """The record of one call, once it is there."""

        def find() -> dict[str, Any] | None:
            return next((o for o in self.journal(proxy) if o.get("session") == name), None)

        found: dict[str, Any] = wait_for(find, 5, f"a record of {name}")
        return found

    def last(self, proxy: Proxy | None = None) -> dict[str, Any]:
        """The record of the newest call."""
        return self.observation(f"{self._prefix}-{self._tries}", proxy)

    def journal(self, proxy: Proxy | None = None) -> list[dict[str, Any]]:
        """Every observation of all proxies of this lab, or of one."""
        if proxy is not None:
            return proxy.journal()
        return [o for data in sorted(self._folders) for o in journal_of(data)]

    def metric(self, name: str, proxy: Proxy | None = None) -> float:
        """The sum of a metric's samples (a name may hold labels)."""
        total = 0.0
        for line in (proxy or self.proxy).text("/metrics").splitlines():
            rest = line.removeprefix(name)
            if rest != line and (rest[:1] in (" ", "{", "}", ",") or "{" in name):
                total += float(line.rpartition(" ")[2])
        return total

    def health(self, component: str, proxy: Proxy | None = None) -> str:
        """One component's state."""
        rows = (proxy or self.proxy).api("/api/v1/health")["components"]
        return str(next(row["state"] for row in rows if row["name"] == component))

    def block(self, agent: str = BLOCKED_AGENT, proxy: Proxy | None = None) -> str:
        """Block an agent by hand, for an hour; the action's id."""
        body = {"kind": "block", "dimension": "agent", "value": agent, "seconds": 3600}
        return str((proxy or self.proxy).api("/api/v1/actions", "POST", body)["id"])

    def is_blocked(self, agent: str = BLOCKED_AGENT, port: int | None = None) -> bool:
        """Is a call of the agent refused?"""
        reply = self.call(port=port, headers={"X-Tokenweir-Agent": agent})
        return reply.status in (403, 429)

    # -- the audit -----------------------------------------------------------------

    def audit(self, outcome: Outcome, fault: Fault) -> None:
        """What upstreams saw, against the journal; the journal, against the store."""
        arrived = Counter(
            n
            for n in self.script.arrived
            if n.startswith(outcome_prefix(outcome)) and (n in self.answered or not fault.kills)
        )

        def recorded() -> Counter[str]:
            return Counter(
                str(o.get("session"))
                for o in self.journal()
                if str(o.get("session")).startswith(outcome_prefix(outcome))
            )

        deadline = time.monotonic() + 5
        while (missing := self._missing(arrived, records := recorded())) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        twice = [n for n, count in records.items() if count > 1]
        outcome.lost += len(missing)
        outcome.doubled += sum(records[n] - 1 for n in twice)
        outcome.why += [f"no record of {n}" for n in missing[:3]]
        outcome.why += [f"two records of {n}" for n in twice[:3]]
        if fault.recount:
            counted, written = self.recounted()
            outcome.lost += max(0, written - counted)
            outcome.doubled += max(0, counted - written)
            if counted != written:
                outcome.why.append(f"the store counts {counted}, the journal {written}")

    def _missing(self, arrived: Counter[str], records: Counter[str]) -> list[str]:
        """Calls without a record; names beyond the cap are told as `other`, by their number."""
        unknown = [n for n in arrived if n not in records]
        if unknown:
            unknown = unknown[sum(o.get("session") == "other" for o in self.journal()) :]
        return unknown

    def recounted(self, seconds: float = 15) -> tuple[int, int]:
        """Calls that the store counts and those in the journal, once both rest."""
        deadline = time.monotonic() + seconds
        while True:
            written = len(self.journal())
            counted = -1
            with contextlib.suppress(urllib.error.URLError, OSError):
                rows = self.proxy.usage()
                counted = sum(r["requests"] + r["refused"] for r in rows)
            if counted == written or time.monotonic() > deadline:
                return counted, written
            time.sleep(0.1)


def outcome_prefix(outcome: Outcome) -> str:
    return f"r{outcome.row}-"


def journal_of(data: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((data / "journal").rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and "endpoint" in record:
                    found.append(record)
    return found


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A chat request in OpenAI's shape."""
    message = {"role": "user", "content": text}
    return {"model": "gpt-4o-mini", "messages": [message], **more}


def read_reply(link: socket.socket, method: str = "POST") -> Reply:
    """Read one answer; ``whole`` is false where it was cut short."""
    answer = http.client.HTTPResponse(link, method=method)
    try:
        answer.begin()
    except (http.client.HTTPException, ConnectionError, TimeoutError):
        return Reply(0, {}, b"", False)
    headers = {name.lower(): value for name, value in answer.getheaders()}
    try:
        body, whole = answer.read(), True
    except http.client.IncompleteRead as cut:
        body, whole = cut.partial, False
    except (ConnectionError, TimeoutError, ValueError):
        body, whole = b"", False
    return Reply(answer.status, headers, body, whole)
