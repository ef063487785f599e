"""Restarts under load: no connect fails, no request is refused, no block is forgotten."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from pathlib import Path

import pytest

from tests.chaos.lab import TRY_HEADER, Lab
from tests.chaos.store_lab import StoreLab
from tests.rig import Proxy, Raw, wait_for


class Load:
    """Clients that connect anew for each call, and some that keep their connection."""

    def __init__(self, lab: Lab, ports: list[int]) -> None:
        self.lab, self.ports = lab, ports
        self.failures: list[str] = []
        self.calls = self.blocked = self.let_through = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        kinds = (self.fresh, self.fresh, self.kept)
        self._threads = [
            threading.Thread(target=self._run, args=(k, n)) for n, k in enumerate(kinds)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, kind: object, worker: int) -> None:
        number = 0
        kept: dict[int, http.client.HTTPConnection] = {}
        while not self._stop.is_set():
            number += 1
            port = self.ports[number % len(self.ports)]
            blocked = number % 5 == 0
            name = f"load-{worker}-{number}"
            headers = {"X-Tokenweir-Agent": "blocked-by-hand"} if blocked else {}
            request = {"headers": headers, "name": name}
            try:
                status = kind(port, request, kept)  # type: ignore[operator]
            except (OSError, http.client.HTTPException) as error:
                self._note(f"{name} to {port}: {error!r}")
                continue
            with self._lock:
                self.calls += 1
                if blocked:
                    self.blocked += status == 429
                    self.let_through += status == 200
                elif status != 200:
                    self._note(f"{name} to {port}: {status}")
            time.sleep(0.002)

    def _note(self, what: str) -> None:
        self.failures.append(what)

    def fresh(self, port: int, request: dict[str, object], kept: object) -> int:
        return self.lab.call(port=port, timeout=30, **request).status or self._broken()

    def _broken(self) -> int:
        raise ConnectionError("no answer on a fresh connection")

    def kept(
        self, port: int, request: dict[str, object], kept: dict[int, http.client.HTTPConnection]
    ) -> int:
        """As every client does: a kept connection found closed is opened again, once."""
        name = str(request["name"])
        headers = {TRY_HEADER: name, "X-Tokenweir-Session": name, **request["headers"]}  # type: ignore[dict-item]
        body = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}'
        headers["Content-Type"] = "application/json"
        while True:
            link = kept.pop(port, None)
            reused = link is not None
            link = link or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                link.request("POST", "/v1/chat/completions", body, headers)
                answer = link.getresponse()
                answer.read()
            except (ConnectionError, http.client.RemoteDisconnected):
                link.close()
                if not reused:
                    raise
                continue
            if not answer.will_close:
                kept[port] = link
            return answer.status


def hand_over(lab: Lab, old: Proxy, name: str, workers: int = 1) -> Proxy:
    """Start another process on the same port and data, then end the first."""
    arguments = ("--port", str(old.port), "--workers", str(workers))
    new = lab.start(name, arguments=arguments, settings=lab.settings)
    assert new.port == old.port
    assert old.stop(timeout=60) == 0
    lab.proxies.remove(old)
    return new


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_port_is_handed_over_without_a_failed_connect(tmp_path: Path, workers: int) -> None:
    lab = Lab(tmp_path, arguments=("--workers", str(workers)))
    with contextlib.closing(lab):
        lab.begin("hand")
        lab.block()
        port = lab.proxy.port
        with Load(lab, [port]) as load:
            for _ in range(2):
                time.sleep(0.3)
                lab.proxy = hand_over(lab, lab.proxy, "0", workers)
        assert load.failures == []
        assert load.let_through == 0 and load.blocked > 10 and load.calls > 50
        counted, written = lab.recounted(30)
        arrived = len(lab.script.arrived)
        assert counted == written == arrived + load.blocked


@pytest.mark.slow
def test_a_rolling_restart_of_three_replicas(tmp_path: Path) -> None:
    lab = StoreLab(tmp_path)
    with contextlib.closing(lab):
        lab.begin("roll")
        lab.block()
        replicas = [lab.proxy, lab.further("1"), lab.further("2")]
        for replica in replicas:
            wait_for(lambda r=replica: lab.is_blocked(port=r.port), 20, "blocked everywhere")
        with Load(lab, [r.port for r in replicas]) as load:
            for number, replica in enumerate(replicas):
                time.sleep(0.3)
                replicas[number] = hand_over(lab, replica, str(number))
                if number == 0:
                    lab.proxy = replicas[0]
            time.sleep(0.3)
        assert load.failures == []
        assert load.let_through == 0 and load.blocked > 20
        counted, written = lab.recounted(30)
        assert counted == written
        assert all(lab.is_blocked(port=r.port) for r in replicas)


def test_a_connection_made_before_the_end_is_served(tmp_path: Path) -> None:
    """A client that has connected and not spoken yet is no idle one."""
    lab = Lab(tmp_path)
    with contextlib.closing(lab):
        lab.begin("late")
        with Raw(lab.proxy.port, timeout=30) as early:
            time.sleep(0.2)
            lab.proxy.process.terminate()
            time.sleep(0.2)
            early.send(lab.raw_request())
            assert b"200 OK" in early.until(b"Hello.")
        assert lab.proxy.process.wait(60) == 0
