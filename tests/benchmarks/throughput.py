"""How fast: ourselves with everything on, beside nginx and other gateways.

``python -m tests.benchmarks.throughput [--rounds 3] [--seconds 4] [--quick]
[--json FILE] [--chart FILE.svg]``

One core for the proxy under test, the other for the load (wrk) and the upstream (a
small C program, ``upstream.c``). Peers are measured one after another, in rounds, so
that a change of the machine's mood touches all of them; figures are medians over the
rounds. The machine may be shared: CPU time per request is the figure to trust, and
ratios within this run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme

from tests.benchmarks import _peers as peers
from tests.benchmarks._chart import bars
from tests.benchmarks._load import (
    Reading,
    counted,
    cpu_seconds,
    free_port,
    memory_megabytes,
    running,
    upstream,
    wrk,
)

PROXY_CPU, LOAD_CPU = 0, (os.cpu_count() or 1) - 1
LEVELS = (1, 32, 128, 512)
OURS = "tokenweir"


def targets(folder: Path, plain: int, tls_upstream: int, cert: Path, ca: Path) -> list[peers.Peer]:
    """Every proxy that can be run here, each with a folder and ports of its own."""
    found: list[peers.Peer | None] = []

    def place(name: str) -> Path:
        path = folder / name
        path.mkdir()
        return path

    found.append(peers.nginx(place("nginx"), free_port(), plain))
    found.append(peers.haproxy(place("haproxy"), free_port(), plain))
    found.append(peers.tokenweir(place("ours"), free_port(), plain))
    found.append(
        peers.tokenweir(
            place("ours-tls"), free_port(), plain, name="tokenweir, TLS port", cert=cert
        )
    )
    if tls_upstream:
        found.append(
            peers.tokenweir(
                place("ours-tls-up"),
                free_port(),
                tls_upstream,
                name="tokenweir, TLS upstream",
                upstream_ca=ca,
            )
        )
    found.append(
        peers.tokenweir(
            place("ours-no-store"),
            free_port(),
            plain,
            name="tokenweir, store killed",
            kills_store=True,
        )
    )
    found.append(peers.portkey(place("portkey"), free_port(), plain))
    found.append(peers.litellm(place("litellm"), free_port(), plain))
    return [peer for peer in found if peer is not None]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A server's certificate with its key, and the authority that signed it."""
    authority = trustme.CA()
    cert, ca = folder / "cert.pem", folder / "ca.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(cert)
    )
    authority.cert_pem.write_to_path(str(ca))
    return cert, ca


def measure(
    peer: peers.Peer, folder: Path, seconds: float, levels: tuple[int, ...]
) -> dict[str, Any]:
    """One round of one peer."""
    place = next(folder.glob("*"), folder)
    with running(peer, place, PROXY_CPU) as (pid, started):
        figures: dict[str, Any] = {"start_seconds": started}
        time.sleep(1.0)
        idle = cpu_seconds(pid)
        time.sleep(1.0)
        figures["idle_cpu_ms_per_second"] = (cpu_seconds(pid) - idle) * 1e3
        figures["idle_megabytes"] = memory_megabytes(pid)
        options = {"seconds": seconds, "cpu": LOAD_CPU}
        wrk(peer, pid, connections=8, stream=False, **{**options, "seconds": 1.0})
        for level in levels:
            figures[f"json@{level}"] = wrk(peer, pid, connections=level, stream=False, **options)
        figures["sse@32"] = wrk(peer, pid, connections=32, stream=True, **options)
        figures["sse-at-once@32"] = wrk(
            peer, pid, connections=32, stream=True, at_once=True, **options
        )
        figures["loaded_megabytes"] = memory_megabytes(pid)
    return figures


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, field by field."""
    found: dict[str, Any] = {}
    for name, first in rounds[0].items():
        values = [r[name] for r in rounds if name in r]
        if isinstance(first, Reading):
            found[name] = {
                field: statistics.median(getattr(v, field) for v in values)
                for field in Reading.__dataclass_fields__
            }
        else:
            found[name] = statistics.median(values)
    return found


def table(results: dict[str, dict[str, Any]], direct: Reading, levels: tuple[int, ...]) -> str:
    lines = [
        "| proxy | JSON/s at 32 | CPU µs | × nginx | added p50 / p99 ms at 1 | p99 ms at 512 "
        "| stream CPU µs, at once | paced | start s | idle MB | failed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = results.get("nginx", {}).get("json@32", {}).get("requests_per_second")
    most = f"json@{max(levels)}"
    for name, row in results.items():
        at32, one = row["json@32"], row["json@1"]
        burst, stream = row["sse-at-once@32"], row["sse@32"]
        ratio = f"{at32['requests_per_second'] / base:.2f}" if base else "–"
        failed = sum(v["failed"] for v in row.values() if isinstance(v, dict))
        lines.append(
            f"| {name} | {at32['requests_per_second']:,.0f} | {at32['cpu_us']:.0f} | {ratio} "
            f"| {one['p50_ms'] - direct.p50_ms:.2f} / {one['p99_ms'] - direct.p99_ms:.2f} "
            f"| {row[most]['p99_ms']:.0f} | {burst['cpu_us']:.0f} | {stream['cpu_us']:.0f} "
            f"| {row['start_seconds']:.1f} | {row['idle_megabytes']:.0f} | {failed:.0f} |"
        )
    return "\n".join(lines)


def versions() -> str:
    """What was measured, on what."""
    said = []
    for command in (["nginx", "-v"], ["haproxy", "-v"], ["wrk", "-v"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            continue
        said.append((done.stdout + done.stderr).splitlines()[0].strip())
    return f"Python {platform.python_version()}, {os.cpu_count()} cores; " + "; ".join(said)


def main(options: argparse.Namespace) -> None:
    levels = (1, 32) if options.quick else LEVELS
    seconds = 2.0 if options.quick else options.seconds
    rounds: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name, upstream(options.pace_ms, LOAD_CPU) as port:
        folder = Path(name)
        cert, ca = certificate(folder)
        front = folder / "front"
        front.mkdir()
        tls_port = free_port()
        terminator = peers.nginx(front, tls_port, port, cert)
        direct = peers.Peer("direct", [], port)
        straight = wrk(direct, os.getpid(), connections=1, seconds=2, stream=False, cpu=LOAD_CPU)
        for number in range(1 if options.quick else options.rounds):
            place = folder / f"round-{number}"
            place.mkdir()
            for peer in targets(place, port, tls_port if terminator else 0, cert, ca):
                if options.only and options.only not in peer.name:
                    continue
                print(f"round {number + 1}: {peer.name}", flush=True)
                try:
                    with tls_in_front(peer, terminator, front):
                        figures = measure(peer, place, seconds, levels)
                except TimeoutError as error:
                    print(f"  left out: {peer.name}: {error}", flush=True)
                    continue
                rounds.setdefault(peer.name, []).append(figures)
        print(f"upstream received: {counted(port)}")
    results = {name: median(found) for name, found in rounds.items()}
    print(versions())
    print(table(results, straight, levels))
    ratios(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.chart:
        chart = {name: row["json@32"]["cpu_us"] for name, row in results.items()}
        options.chart.write_text(bars(chart, "CPU per request, µs (less is better)", OURS))


class tls_in_front:  # noqa: N801 - a context manager, read as words
    """Runs the TLS terminator before the upstream only for who needs it."""

    def __init__(self, peer: peers.Peer, terminator: peers.Peer | None, folder: Path) -> None:
        needed = "TLS upstream" in peer.name and terminator is not None
        self._running = running(terminator, folder, LOAD_CPU) if needed and terminator else None

    def __enter__(self) -> None:
        if self._running:
            self._running.__enter__()

    def __exit__(self, *failure: Any) -> None:
        if self._running:
            self._running.__exit__(*failure)


def ratios(results: dict[str, dict[str, Any]]) -> None:
    """Ourselves against each of the others, at concurrency 32."""
    ours = results.get(OURS)
    if ours is None:
        return
    for name, row in results.items():
        if name.startswith(OURS):
            continue
        if not row["json@32"]["requests_per_second"]:
            continue
        rate = ours["json@32"]["requests_per_second"] / row["json@32"]["requests_per_second"]
        burst, paced = (
            ours[level]["cpu_us"] / row[level]["cpu_us"] for level in ("sse-at-once@32", "sse@32")
        )
        print(
            f"JSON at 32: {rate:.2f} x {name}; CPU of a stream: {burst:.2f} x {name} "
            f"where its events come at once, {paced:.2f} where they are paced"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--pace-ms", type=int, default=1, help="time between a stream's events")
    parser.add_argument("--quick", action="store_true", help="one short round, two levels")
    parser.add_argument("--only", default="", help="only peers whose name holds this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    main(parser.parse_args())
