"""A store that is away, slow, wrong or forgetful (rows 53-68), under a running proxy.

Owns: doing it to a real server, and what proxy, clients and counts must show.
Must never: reach past the server into the proxy's own parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.lab import MissingError, fault
from tests.chaos.store_lab import StoreLab, Wire
from tests.rig import Proxy, start_proxy, wait_for
from tests.unit.store.support import Server

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
CALLERS = 500
make_shared = StoreLab


def own(**settings: object) -> object:
    """A lab for one fault alone: what is done to its store concerns nobody else."""
    return lambda folder: StoreLab(folder, settings)


@fault(53, "store down at start", slow=True, tries=2, make=own())
def down_at_start(lab: StoreLab) -> None:
    lab.proxy.stop()
    lab.server.kill()
    lab.replace()
    lab.store_is(False)
    lab.calls(3)
    assert lab.is_blocked(), "the block was forgotten without the store"
    lab.server.start()
    lab.store_is(True)


@fault(54, "store killed under load", tries=3, make=own())
def killed_under_load(lab: StoreLab) -> None:
    lab.calls(5)
    lab.server.kill()
    lab.calls(20, 0.6)
    assert lab.is_blocked()
    lab.store_is(False)
    lab.server.start()
    lab.store_is(True)


@fault(55, "DEBUG SLEEP", slow=True, tries=2, make=own())
def asleep(lab: StoreLab) -> None:
    sleeper = threading.Thread(target=lab.server.command, args=("DEBUG", "SLEEP", "2"))
    sleeper.start()
    # Seen as away while it still sleeps: nobody waited for it.
    lab.store_is(False, 1.8)
    assert sleeper.is_alive()
    lab.calls(5)
    assert lab.is_blocked()
    sleeper.join()
    lab.store_is(True)


@fault(56, "packets dropped (black hole)", slow=True, tries=2, make=own())
def black_hole(lab: StoreLab) -> None:
    lab.wire.fault.black_hole = True
    lab.store_is(False, 3)
    lab.calls(10, 0.3)
    assert lab.is_blocked()
    lab.wire.fault.black_hole = False
    lab.store_is(True)


@contextlib.contextmanager
def dropped_by_kernel(port: int) -> Iterator[None]:
    """The kernel drops every packet to a port of this machine."""
    rule = ["-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    done = subprocess.run(["iptables", "-I", "INPUT", *rule], capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"iptables may not be used here: {done.stderr.strip()[:80]}")
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", "INPUT", *rule], check=True)


@fault(56, "packets dropped by the kernel", tries=1, slow=True, needs=("iptables",), make=own())
def kernel_drops(lab: StoreLab) -> None:
    with dropped_by_kernel(lab.wire.fault.port):
        lab.store_is(False, 3)
        lab.calls(10, 0.3)
        assert lab.is_blocked()
    lab.store_is(True)


def copy_of(lab: StoreLab, *, synced: bool) -> Server:
    """A second server with what the first one held, and a primary now."""
    copy = lab.second_server()
    copy.command("REPLICAOF", "127.0.0.1", str(lab.server.port))
    wait_for(lambda: b"master_link_status:up" in copy.command("INFO", "replication"), 10, "copy")
    if synced:
        wait_for(lambda: offset(copy) >= offset(lab.server) - 200, 5, "the copy caught up")
    copy.command("REPLICAOF", "NO", "ONE")
    return copy


def offset(server: Server) -> int:
    text = server.command("INFO", "replication").decode(errors="replace")
    line = next(x for x in text.split("\r\n") if x.startswith("master_repl_offset"))
    return int(line.partition(":")[2])


@fault(57, "READONLY after a failover", slow=True, tries=1, make=own())
def read_only(lab: StoreLab) -> None:
    lab.calls(5)
    copy = copy_of(lab, synced=True)
    lab.server.command("REPLICAOF", "127.0.0.1", str(copy.port))
    lab.wire.fault.target = str(copy.path)  # the name leads there; open connections stay
    lab.calls(10, 0.5)
    assert lab.is_blocked()
    lab.store_is(True)
    lab.calls(2)


@fault(58, "OOM: writes refused, reads work", tries=2, make=own())
def out_of_memory(lab: StoreLab) -> None:
    lab.calls(3)
    counted, _ = lab.recounted()
    lab.server.command("CONFIG", "SET", "maxmemory", "1")
    lab.calls(5)
    rows = lab.proxy.usage()
    assert sum(r["requests"] + r["refused"] for r in rows) >= counted, "reads stopped too"
    assert lab.is_blocked()
    wait_for(lambda: lab.metric("tokenweir_store_failures_total") > 0, 5, "told in a metric")
    lab.server.command("CONFIG", "SET", "maxmemory", "0")


@fault(58, "MISCONF: the store's disk is full", slow=True, tries=1, make=own())
def disk_of_the_store(lab: StoreLab) -> None:
    lab.calls(3)
    (lab.server.folder / "dump.rdb").mkdir()
    lab.server.command("CONFIG", "SET", "save", "1 1")
    lab.server.command("SET", "x", "1")
    lab.server.command("BGSAVE")
    failed = b"rdb_last_bgsave_status:err"
    wait_for(lambda: failed in lab.server.command("INFO", "persistence"), 10, "a failed save")
    lab.calls(5)
    assert lab.is_blocked() and lab.proxy.usage()
    lab.server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")


@fault(59, "WRONGTYPE on one key", slow=True, tries=1, make=own())
def wrong_type(lab: StoreLab) -> None:
    lab.calls(3)
    lab.recounted()
    keys = lab.server.command("KEYS", "tw:{b0}:c:*").split(b"\r\n")
    spoiled = next(k.decode() for k in keys if b":a" in k)
    lab.server.command("SET", spoiled, "not a hash")
    lab.calls(5)
    told = "wrong type"
    wait_for(lambda: told in lab.proxy.log.read_text().replace("_", " "), 10, "an alarm")


@fault(60, "SCRIPT FLUSH in a loop", slow=True, tries=3, make=own())
def scripts_flushed(lab: StoreLab) -> None:
    for _ in range(15):
        lab.server.command("SCRIPT", "FLUSH")
        lab.calls(2, 0.05)
    assert lab.is_blocked()
    assert lab.metric("tokenweir_store_up") == 1


@fault(61, "scripts forbidden by ACL", tries=2, make=own())
def scripts_forbidden(lab: StoreLab) -> None:
    acl = "limited on >secret-of-store ~* &* +@all -eval -evalsha"
    lab.server.command("ACL", "SETUSER", *acl.split())
    url = lab.wire.url.replace("//", "//limited:secret-of-store@")
    try:
        start_proxy(lab.folder / "forbidden", {"store": {"url": url}})
    except AssertionError as refused:
        text = str(refused)
    else:
        raise AssertionError("it started")
    assert "EVALSHA" in text and "Traceback" not in text, text[-300:]
    assert "secret-of-store" not in text


@fault(62, "failover while a block is set", slow=True, tries=1, make=own())
def failover_mid_block(lab: StoreLab) -> None:
    lab.calls(5)
    copy = copy_of(lab, synced=False)
    lab.block("set-meanwhile")  # the old primary knows it, the new one never heard of it
    lab.calls(5)
    lab.server.kill()
    lab.wire.fault.target = str(copy.path)
    lab.wire.cut()
    assert lab.is_blocked("set-meanwhile")
    lab.store_is(True)
    other = lab.further("1")
    wait_for(lambda: lab.is_blocked("set-meanwhile", other.port), 5, "blocked elsewhere too")
    assert lab.is_blocked(port=other.port)


@fault(63, f"{CALLERS} concurrent callers", tries=2, make=own())
def many_callers(lab: StoreLab) -> None:
    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.proxy.port)
        writer.write(lab.raw_request(headers={"Connection": "close"}))
        answer = await reader.read()
        writer.close()
        return answer[:12]

    async def all_at_once() -> list[bytes]:
        return await asyncio.gather(*(one() for _ in range(CALLERS)))

    answers = asyncio.run(all_at_once())
    assert answers.count(b"HTTP/1.1 200") == CALLERS
    assert "Too many connections" not in lab.proxy.log.read_text()


def with_clock(lab: StoreLab, name: str, clock: dict[str, str]) -> Proxy:
    """A further replica whose wall clock is told by libfaketime."""
    if not FAKETIME.exists():
        raise MissingError("libfaketime is not installed (tests/setup.sh chaos)")
    fixed = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return lab.further(name, environment=fixed | clock)


@fault(64, "a replica's clock is 5 minutes off", slow=True, tries=1, make=own())
def clock_off(lab: StoreLab) -> None:
    for name, shift in (("ahead", "+300s"), ("behind", "-300s")):
        other = with_clock(lab, name, {"FAKETIME": shift})
        assert lab.is_blocked(port=other.port)
        lab.calls(3, proxy=other)
        for record in lab.journal(other):
            assert abs(record["ts"] - time.time()) < 30, f"{name}: the replica's own clock counts"


@fault(65, "the wall clock is stepped", slow=True, tries=1, make=own())
def clock_stepped(lab: StoreLab) -> None:
    file = lab.folder / f"clock-{time.monotonic_ns()}"
    file.write_text("+0")
    name = f"stepped-{lab.next_try()}"
    how = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    other = with_clock(lab, name, how)
    for step in ("+7200s", "-7200s", "+0"):
        file.write_text(step)
        lab.calls(4, 0.3, proxy=other)
        assert lab.is_blocked(port=other.port), f"a block expired by a step of {step}"
    for record in lab.journal(other):
        assert 0 <= record["latency_seconds"] < 60
        assert abs(record["ts"] - time.time()) < 60


@fault(66, "FLUSHALL", slow=True, tries=3, make=own())
def flushed(lab: StoreLab) -> None:
    lab.calls(5)
    lab.server.command("FLUSHALL")
    lab.calls(5)
    assert lab.is_blocked()
    blocks = b"blocked-by-hand"
    wait_for(
        lambda: blocks in lab.server.command("HGETALL", "tw:{ctl}:live"), 5, "the block is back"
    )


@fault(67, "a reply lost after execution", tries=5, make=own())
def reply_lost(lab: StoreLab) -> None:
    before = lab.wire.fault.replies_lost
    lab.wire.fault.lose_replies(3)
    lab.calls(10, 0.6)
    assert lab.wire.fault.replies_lost > before
    assert lab.is_blocked()


LIMIT = 20
_SPENT = """local sum = 0
for _, key in ipairs(redis.call('KEYS', 'tw:{hold*')) do
  sum = sum + tonumber(redis.call('HGET', key, 's') or 0)
end
return sum"""


def spent_in_store(lab: StoreLab) -> int:
    """What all replicas have told of the lab's one limit."""
    return int(lab.server.command("EVAL", _SPENT, "0").strip(b":\r\n"))


@fault(
    68,
    "one replica partitioned",
    slow=True,
    tries=1,
    make=own(
        limits=[
            {
                "name": "fleet",
                "by": ["agent"],
                "match": {"agent": ["limited"]},
                "requests": LIMIT,
                "per": "hour",
            }
        ]
    ),
)
def partitioned(lab: StoreLab) -> None:
    wire = Wire(str(lab.server.path))
    lab.defer(wire.close)
    other = lab.further("far", wire=wire)
    lab.calls(3, 0.5, proxy=other)
    # The replica knows of the fleet's size from the last heartbeat that it heard.
    time.sleep(2.5)
    wire.fault.refuse = wire.fault.black_hole = True
    wire.cut()
    lab.store_is(False, proxy=other)
    agent = {"X-Tokenweir-Agent": "limited"}
    passed = sum(lab.call(port=other.port, headers=agent).status == 200 for _ in range(LIMIT + 5))
    assert 0 < passed <= LIMIT // 2, f"{passed} of {LIMIT} passed at one of two replicas"
    lab.calls(5, proxy=other)
    wire.fault.refuse = wire.fault.black_hole = False
    lab.store_is(True, proxy=other)
    wait_for(lambda: spent_in_store(lab) >= passed, 20, "what passed meanwhile is reported")
    passed += sum(lab.call(headers=agent).status == 200 for _ in range(LIMIT + 5))
    assert passed <= LIMIT, f"{passed} of {LIMIT} passed in all"
