"""Ends, full disks, spent descriptors, racing budgets (rows 91-98).

Owns: doing it to running processes. Must never: touch a process or a limit of
anything but the proxies of the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.chaos.lab import Lab, MissingError, chat, fault
from tests.chaos.receiver_lab import ReceiverLab
from tests.chaos.scripted import behaviour
from tests.chaos.store_lab import StoreLab
from tests.rig import Received, chat_answer, json_answer, wait_for

make_shared = Lab


# -- receivers ---------------------------------------------------------------------


def troubled(folder: Path) -> Lab:
    urls = {
        "down": "http://127.0.0.1:9/down",
        "limited": "http://127.0.0.1:PORT/limited",
        "endless": "http://127.0.0.1:PORT/endless",
        "sound": "http://127.0.0.1:PORT/sound",
    }
    receivers = [{"name": n, "type": "webhook", "url": url} for n, url in urls.items()]
    lab = ReceiverLab(folder, receivers)
    lab.receiver.answers["/limited"] = json_answer({}, 429, Retry_After="1")
    return lab


@fault(91, "receivers down, limiting, endless", tries=1, slow=True, make=troubled)
def receivers(lab: ReceiverLab) -> None:
    lab.open_incident("loud")
    dead = {"down", "limited"}
    wait_for(lambda: dead <= {x["receiver"] for x in lab.letters("dead")}, 40, "dead letters")
    assert {x["attempts"] for x in lab.letters("dead") if x["receiver"] in dead} == {3}
    assert len(lab.receiver.to("/limited")) == 3
    assert len(lab.receiver.to("/sound")) == 1, "a sound one waited for a broken one"
    # What the kernel buffers is written too; of 65,536 bytes of answer no more is read.
    assert lab.receiver.sent.get("/endless", 0) < 32 * 2**20


# -- signals -----------------------------------------------------------------------


@behaviour("takes-a-second")
async def takes_a_second(request: Received, reader: Any, writer: Any) -> bool:
    UNDER_WAY.add(request.header("x-try") or "")
    await asyncio.sleep(float(request.header("x-seconds") or "1"))
    writer.write(json_answer(chat_answer()))
    return True


UNDER_WAY: set[str] = set()


def start_slow_call(lab: Lab, seconds: float) -> tuple[threading.Thread, list[int]]:
    """A call under way at the upstream; its status comes into the list."""
    statuses: list[int] = []
    name = lab.next_try()

    def call() -> None:
        how = {"do": "takes-a-second", "headers": {"x-seconds": str(seconds)}, "name": name}
        statuses.append(lab.call(timeout=60, **how).status)

    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: name in UNDER_WAY, 60, "the call is under way")
    return thread, statuses


def readiness(lab: Lab) -> int:
    try:
        with urllib.request.urlopen(lab.proxy.admin + "/health/readiness", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def own(**settings: Any) -> Any:
    """A lab for one fault alone."""
    return lambda folder: Lab(folder, settings)


@fault(92, "SIGTERM", tries=1, slow=True, make=own())
def terminated(lab: Lab) -> None:
    assert readiness(lab) == 200
    thread, statuses = start_slow_call(lab, 3)
    lab.proxy.process.send_signal(signal.SIGTERM)
    wait_for(lambda: readiness(lab) == 503, 2.5, "it says that it is not ready")
    assert lab.proxy.process.wait(60) == 0
    thread.join(30)
    assert statuses == [200], "a running call was cut"
    lab.replace()
    assert lab.is_blocked()


@fault(93, "a second SIGTERM", tries=1, make=own(), kills=True)
def terminated_twice(lab: Lab) -> None:
    thread, statuses = start_slow_call(lab, 40)
    lab.proxy.process.send_signal(signal.SIGTERM)
    wait_for(lambda: readiness(lab) == 503, 60, "it drains")
    began = time.monotonic()
    lab.proxy.process.send_signal(signal.SIGTERM)
    assert lab.proxy.process.wait(20) != 0
    assert time.monotonic() - began < 10
    thread.join(30)
    assert statuses == [0]
    lab.replace()
    assert lab.is_blocked()


def store_pid(lab: Lab) -> int:
    return int((lab.proxy.data_dir / "store" / "server.pid").read_text())


@fault(94, "kill -9 of proxy, store, both", slow=True, tries=1, make=own(), kills=True)
def killed(lab: Lab) -> None:
    for kill_proxy, kill_store in ((True, False), (False, True), (True, True)):
        for _ in range(10):
            assert lab.call().status == 200
        if kill_store:
            os.kill(store_pid(lab), signal.SIGKILL)
        if kill_proxy:
            lab.proxy.process.kill()
            lab.proxy.process.wait(20)
            lab.replace()
        assert lab.is_blocked()
        wait_for(lambda: lab.metric("tokenweir_store_up") == 1, 60, "the store is back")
        assert lab.is_blocked()


# -- budgets -----------------------------------------------------------------------

RACERS = 500
ANSWER_TOKENS = 1000


@behaviour("dear")
async def dear(request: Received, reader: Any, writer: Any) -> bool:
    writer.write(json_answer(chat_answer("gpt-4o", 10, ANSWER_TOKENS)))
    return True


def budgeted(folder: Path) -> Lab:
    return StoreLab(folder, {"budgets": [{"name": "one-dollar", "amount_usd": 1.0, "per": "day"}]})


@fault(95, f"{RACERS} racers, 3 replicas, a budget of $1", slow=True, tries=1, make=budgeted)
def budget_race(lab: StoreLab) -> None:
    ports = [lab.proxy.port, lab.further("1").port, lab.further("2").port]
    body = chat(model="gpt-4o", max_tokens=ANSWER_TOKENS)

    async def one(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[number % 3])
        request = {"do": "dear", "headers": {"Connection": "close"}}
        writer.write(lab.raw_request(body, **request))
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answer[9:12]

    async def race() -> list[bytes]:
        return await asyncio.gather(*(one(n) for n in range(RACERS)))

    statuses = asyncio.run(race())
    # 503: a store that a busy machine made slow, and a budget that is closed without it.
    assert set(statuses) <= {b"200", b"429", b"503"}, set(statuses)
    spent = sum(o["cost_nano_usd"] or 0 for o in lab.journal() if o["status"] == 200)
    assert 0 < spent <= 1e9, f"${spent / 1e9:.4f} of $1 spent"


# -- what runs out -----------------------------------------------------------------


@fault(96, "no file descriptors left", tries=1, make=own())
def no_descriptors(lab: Lab) -> None:
    pid = lab.proxy.process.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 24, before[1]))
    links: list[socket.socket] = []
    statuses = []
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                link = socket.create_connection(("127.0.0.1", lab.proxy.port), 2)
                links.append(link)
        for link in links[:60]:
            link.settimeout(2)
            with contextlib.suppress(OSError):
                link.sendall(lab.raw_request())
                answer = http.client.HTTPResponse(link)
                with contextlib.suppress(http.client.HTTPException):
                    answer.begin()
                    statuses.append(answer.status)
    finally:
        for link in links:
            link.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert {503} <= set(statuses) <= {200, 502, 503}, statuses
    assert lab.proxy.process.poll() is None, "it died"
    wait_for(lambda: lab.call().status == 200, 60, "it serves again")
    assert lab.is_blocked()


def on_small_disk(folder: Path) -> Lab:
    """A lab whose data directory is a file system of 12 MB."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise MissingError("a small file system can't be mounted here")
    lab = Lab(folder, data_root=disk)
    # Detached at once and freed with its last user, whatever ends first.
    lab.defer(subprocess.run, ["umount", "-l", str(disk)])
    return lab


@fault(97, "disk full", tries=1, make=on_small_disk)
def disk_full(lab: Lab) -> None:
    assert lab.call().status == 200
    filler = lab.proxy.data_dir.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(65_536))
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as out:
        while True:
            out.write(b"x" * 16)
    try:
        for _ in range(10):
            assert lab.call(headers={"X-Tokenweir-Tags": f"t={'x' * 100}"}).status == 200
        assert lab.is_blocked()
        wait_for(lambda: lab.health("journal") == "degraded", 60, "health tells")
        assert lab.metric("tokenweir_journal_failures_total") > 0
    finally:
        filler.unlink()
    wait_for(lambda: lab.call().status == 200 and lab.health("journal") == "ok", 30, "it heals")


@fault(98, "scrapes under load", slow=True, tries=1, make=own())
def scraped(lab: Lab) -> None:
    assert lab.call().status == 200  # before the first there is nothing to tell
    stop = threading.Event()

    def load(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = {"X-Tokenweir-Agent": f"agent-{worker}-{number % 150}"}
            lab.call(headers=name)

    workers = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(15):
            assert "tokenweir_requests_total" in lab.proxy.text("/metrics")
            time.sleep(0.1)
        stall = lab.metric("tokenweir_loop_stall_seconds")
    finally:
        stop.set()
        for worker in workers:
            worker.join(20)
    # By the wall clock, so another process's turn on a busy machine is in it too.
    assert stall < 1.0, f"the loop stood still for {stall} s"
