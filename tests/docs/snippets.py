"""Runs the code blocks of a page as a reader would, top to bottom.

Owns: finding the blocks, files that they name, servers that stay, and ports and
folders of the test's own in place of the usual ones. Must never: leave a process
behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import ROOT, wait_for

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVERS = re.compile(r"^(make run|\S*tokenweir serve|\S*tokenweir demo --provider-port)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(language, text) for language, text in _FENCE.findall(page.read_text())]


def free_ports(count: int) -> list[int]:
    """Ports that nobody held a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Reader:
    """A reader with a home and a working directory of their own."""

    folder: Path
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ran: int = 0

    def __post_init__(self) -> None:
        self.ports = dict(zip(("8787", "8788", "8790"), free_ports(3), strict=True))
        self.home = self.folder / "home"
        self.home.mkdir()
        commands = self.folder / ".venv" / "bin"
        commands.mkdir(parents=True)
        script = commands / "tokenweir"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m proxy "$@"\n')
        script.chmod(0o755)
        self.environment = {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{commands}:{os.environ['PATH']}",
            "TOKENWEIR_ADMIN_URL": f"http://127.0.0.1:{self.ports['8788']}",
            "TOKENWEIR_READY_FILE": str(self.folder / "ready.json"),
            "COLUMNS": "120",
        }
        self.environment.pop("TOKENWEIR_ADMIN_TOKEN", None)

    def own(self, text: str) -> str:
        """The text with the test's ports."""
        for usual, mine in self.ports.items():
            text = re.sub(rf"(?<!\d){usual}(?!\d)", str(mine), text)
        return text

    def write(self, block: Block) -> None:
        """A block of YAML whose first line names its file."""
        name = re.match(r"# (\S+\.ya?ml)\n", block.text)
        if name:
            (self.folder / name[1]).write_text(self.own(block.text))

    def run(self, block: Block) -> str:
        """A block of shell; what it printed. Servers are started and stay."""
        self.ran += 1
        words = block.text.strip()
        if _SERVERS.match(words):
            self._serve(words)
            return ""
        done = subprocess.run(
            ["bash", "-ec", self.own(block.text)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}"
        return done.stdout

    def _serve(self, words: str) -> None:
        if words.startswith("make run"):
            # What the Makefile's target does, without its installation.
            given = re.search(r'ARGS="([^"]*)"', words)
            words = f"tokenweir serve {given[1] if given else ''}"
        command = shlex.split(self.own(words))
        if "serve" in command:
            command += ["--port", str(self.ports["8787"])]
            command += ["--admin-port", str(self.ports["8788"])]
        log = (self.folder / f"server-{self.ran}.log").open("wb")
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=log,
            executable=str(self.folder / ".venv" / "bin" / "tokenweir"),
        )
        self.servers.append(process)
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        there = ready.exists if "serve" in command else lambda: _listens(self.ports["8790"])
        wait_for(lambda: process.poll() is not None or there(), 60, words)
        assert process.poll() is None, Path(log.name).read_text()

    def printed(self) -> str:
        """What the servers have printed so far."""
        return "".join(log.read_text() for log in sorted(self.folder.glob("server-*.log")))

    def stop(self) -> None:
        """End the servers, the last first."""
        for process in reversed(self.servers):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if process.poll() is None:
                process.kill()
                process.wait(10)
        self.servers.clear()


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """A reader whose servers end with them."""
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.stop()
