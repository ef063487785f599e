"""What the throughput benchmark drives and reads: the upstream, wrk, and process figures."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from tests.benchmarks._peers import Peer
from tests.benchmarks.stages import ANSWER

TICK = os.sysconf("SC_CLK_TCK")
EVENTS = 62


def free_port() -> int:
    """A port that is free, and so is the one after it.

    Not one of those that clients' sockets get by themselves: thousands of them, closed a
    moment ago, keep a server that starts later from listening there.
    """
    while True:
        wanted = random.randrange(12_000, 32_000)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", wanted))
            second.bind(("127.0.0.1", wanted + 1))
            return wanted


def stream_parts() -> bytes:
    """A chat stream of 62 events, each a chunk and a part of its own."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    events: list[object] = [
        {**base, "choices": [{"index": 0, "delta": {"content": f"w{i} "}, "finish_reason": None}]}
        for i in range(EVENTS - 2)
    ]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 300, "completion_tokens": 60, "total_tokens": 360}
    events.append({**base, "choices": [], "usage": usage})
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    parts = [head]
    for event in events:
        data = f"data: {json.dumps(event)}\n\n".encode()
        parts.append(b"%x\r\n%b\r\n" % (len(data), data))
    parts.append(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    return b"".join(part + b"\0" for part in parts)


@contextmanager
def upstream(pace_ms: int, cpu: int) -> Iterator[int]:
    """The C upstream, compiled on the spot; its port."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("a C compiler is needed for the benchmark's upstream (package gcc)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(__file__).with_name("upstream.c")
        subprocess.run([compiler, "-O2", "-o", folder / "upstream", source], check=True)
        (folder / "answer").write_bytes(ANSWER)
        (folder / "stream").write_bytes(stream_parts())
        port = free_port()
        command = [folder / "upstream", str(port), str(pace_ms), folder / "answer"]
        process = subprocess.Popen([*pinned(cpu), *map(str, command), str(folder / "stream")])
        try:
            wait_for_port(port, 10)
            yield port
        finally:
            end(process)


def pinned(cpu: int) -> list[str]:
    return ["taskset", "-c", str(cpu)] if shutil.which("taskset") else []


def wait_for_port(port: int, seconds: float) -> float:
    """Wait until something listens; seconds waited."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.monotonic() - began
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on {port} after {seconds:.0f} s")


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(peer: Peer, folder: Path, cpu: int) -> Iterator[tuple[int, float]]:
    """A peer under test; its process id and the seconds until its port opened."""
    with (folder / f"{peer.port}.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [*pinned(cpu), *peer.command],
            cwd=folder,
            env={**os.environ, **peer.environment},
            stdout=log,
            stderr=log,
        )
        try:
            wait_for_port(peer.port, 90)
            started = time.monotonic() - began
            if peer.kills_store:
                store = [p for p in tree(process.pid) if "valkey" in name_of(p)]
                time.sleep(2)
                for pid in store:
                    os.kill(pid, signal.SIGKILL)
            yield process.pid, started
        except Exception:
            said = Path(log.name).read_text(errors="replace")[-2000:]
            print(f"{peer.name} ended with {process.poll()}; it said:\n{said}", flush=True)
            raise
        finally:
            end(process)


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found += tree(int(path.parent.name))
    return found


def name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def cpu_seconds(pid: int) -> float:
    """CPU that a peer used: its own processes, without the embedded store's."""
    total = 0
    for each in tree(pid):
        with suppress(OSError):
            if "valkey" not in name_of(each):
                fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory_megabytes(pid: int) -> float:
    """Resident memory of a peer, without the embedded store's."""
    total = 0
    for each in tree(pid):
        with suppress(OSError):
            if "valkey" not in name_of(each):
                text = Path(f"/proc/{each}/status").read_text()
                found = re.search(r"VmRSS:\s+(\d+)", text)  # none for what has just ended
                total += int(found[1]) if found else 0
    return total / 1024


@dataclass
class Reading:
    """One run of wrk."""

    requests_per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    failed: int
    calls: int


class Callers(NamedTuple):
    """How many keys calls come with in turn, and how many calls came before."""

    count: int = 1
    before: int = 0


ONE_CALLER = Callers()


def script(peer: Peer, callers: Callers, *, stream: bool, at_once: bool = False) -> str:
    """What wrk sends: 1.5 KB, no two alike."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": "Bearer sk-bench",
        "User-Agent": "OpenAI/Python 2.7.0",
        "Accept": "application/json",
        **peer.headers,
    }
    usage = ',"stream":true,"stream_options":{"include_usage":true}' if stream else ""
    if at_once:
        usage += ',"seed":1'
    start = (
        f'{{"model":"gpt-4o-mini"{usage},"max_tokens":200,"messages":[{{"role":"system","content":"'
        + "You are a helpful assistant. " * 42
        + '"},{"role":"user","content":"What is known about order '
    )
    fields = ",".join(f"[{json.dumps(k)}]={json.dumps(v)}" for k, v in headers.items())
    key = f"fields['Authorization']='Bearer sk-bench-'..(n%{callers.count}); "
    return (
        f"local start={json.dumps(start)}\nlocal seed=os.time()\nlocal n={callers.before}\n"
        f"local fields={{{fields}}}\n"
        f"function request() n=n+1; {key if callers.count > 1 else ''}return wrk.format('POST',"
        f"'{peer.path}',fields,start..seed..'-'..n..'?\"}}]}}') end\n"
    )


def wrk(
    peer: Peer,
    pid: int,
    *,
    connections: int,
    seconds: float,
    stream: bool,
    cpu: int,
    at_once: bool = False,
    callers: Callers = ONE_CALLER,
) -> Reading:
    """Drive a peer and read what it cost. ``at_once``: the upstream paces no stream."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script(peer, callers, stream=stream, at_once=at_once))
        file.flush()
        scheme = "https" if peer.tls else "http"
        command = [*pinned(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
        command += ["--timeout", "10s", "-s", file.name, f"{scheme}://127.0.0.1:{peer.port}/"]
        before = cpu_seconds(pid)
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(pid) - before
    done = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: .*timeout (\d+)", text)
    return Reading(
        requests_per_second=float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        cpu_us=used / max(done, 1) * 1e6,
        p50_ms=_latency(text, "50%"),
        p99_ms=_latency(text, "99%"),
        failed=int(bad[1] if bad else 0) + int(errors[1] if errors else 0),
        calls=done,
    )


def _latency(text: str, mark: str) -> float:
    found = re.search(rf"{mark}\s+([\d.]+)(us|ms|s)\b", text)
    if found is None:
        return float("nan")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def counted(port: int) -> dict[str, int]:
    """What the upstream says it received."""
    with urlopen(f"http://127.0.0.1:{port}/count") as answer:
        return dict(json.load(answer))
