"""Configurations that are wrong (rows 69-75): refused at start, ignored at a reload.

Owns: the faulty files, and what must be said of them. Must never: leave a
faulty file behind, for the others of the group.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.chaos.lab import Lab, fault
from tests.rig import ROOT, wait_for

LIMIT = {"name": "few", "by": ["agent"], "match": {"agent": ["limited"]}, "requests": 1}
SECRET = "sk-secret-of-the-environment"


def make_shared(folder: Path) -> Lab:
    """The group's lab, with a limit that shows which settings are in force."""
    return Lab(folder, {"limits": [{**LIMIT, "per": "hour"}]})


def refused_at_start(lab: Lab, text: str) -> list[str]:
    """What `serve` says of a file before it exits with 2."""
    file = lab.folder / "faulty.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(file)]
    environment = os.environ | {"OTHER_SECRET": SECRET, "COLUMNS": "400"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, f"exit {done.returncode}: {said[-500:]}"
    assert "Traceback" not in said and SECRET not in said
    return [line for line in said.splitlines() if "faulty.yaml:" in line]


def reloads(lab: Lab, outcome: str) -> float:
    return lab.metric(f'tokenweir_config_reloads_total{{outcome="{outcome}"')


def limited(lab: Lab) -> bool:
    """Whether the limit of the first file is in force."""
    agent = {"X-Tokenweir-Agent": "limited"}
    return any(lab.call(headers=agent).status == 429 for _ in range(2))


@contextlib.contextmanager
def file_of(lab: Lab) -> Iterator[Path]:
    """The running proxy's file, put back and read again at the end."""
    good = lab.proxy.config.read_text()
    try:
        yield lab.proxy.config
    finally:
        before = reloads(lab, "ok")
        lab.proxy.config.write_text(good + "# again\n")
        wait_for(lambda: reloads(lab, "ok") > before, 90, "the good file is read")


def refused_at_reload(lab: Lab, text: str) -> None:
    """A running proxy keeps what it has, and says so."""
    with file_of(lab) as file:
        before = reloads(lab, "failed")
        file.write_text(text)
        wait_for(lambda: reloads(lab, "failed") > before, 90, "the refusal is counted")
        assert limited(lab), "the old settings are no longer in force"
        assert lab.health("config") == "degraded"
        assert "config_refused" in lab.proxy.log.read_text()
    assert lab.health("config") == "ok"


@fault(69, "a typo", tries=2)
def typo(lab: Lab) -> None:
    lines = refused_at_start(lab, "mode: enforced\nserver:\n  prot: 1\n  port: abc\n")
    assert len(lines) == 3, lines
    assert ":1:1: mode: " in lines[0] and "did you mean `enforce`" in lines[0]
    assert ":3:3: server.prot: " in lines[1] and "did you mean `port`" in lines[1]
    assert ":4:3: server.port: " in lines[2]


@fault(70, "a bad reload", tries=2)
def bad_reload(lab: Lab) -> None:
    refused_at_reload(lab, "server: {prot: 1}\n")


@fault(71, "a half-written file", tries=2)
def half_written(lab: Lab) -> None:
    whole = yaml.safe_dump(yaml.safe_load(lab.proxy.config.read_text())).encode()
    with file_of(lab) as file:
        failed, read = reloads(lab, "failed"), reloads(lab, "ok")
        with file.open("wb", buffering=0) as out:
            for at in range(0, len(whole), 64):
                out.write(whole[at : at + 64])
                time.sleep(0.02)
        wait_for(lambda: reloads(lab, "ok") > read, 90, "the whole file is read")
        assert reloads(lab, "failed") == failed, "a part of the file was read"
        assert limited(lab)


@fault(72, "a YAML alias bomb", slow=True, tries=1)
def alias_bomb(lab: Lab) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    bomb = "\n".join(lines)
    assert "an alias that multiplies" in refused_at_start(lab, bomb)[0]
    refused_at_reload(lab, bomb)


@fault(73, "a regular expression that backtracks", slow=True, tries=1)
def backtracking(lab: Lab) -> None:
    for bad in ("~(a+)+b", "~(a|aa)*b"):
        text = f"protect:\n  - match: {{agent: ['{bad}']}}\n"
        assert "protect[0].match.agent[0]" in refused_at_start(lab, text)[0]
    refused_at_reload(lab, text)


@fault(74, "a missing secret", tries=1)
def missing_secret(lab: Lab) -> None:
    text = "upstreams: {a: {base_url: 'http://${OTHER_SECRET}', api_key: '${A_KEY}'}}\n"
    (line,) = refused_at_start(lab, text)
    assert line.endswith("upstreams.a.api_key: the environment variable A_KEY is not set")


@fault(75, "the same key twice", slow=True, tries=1)
def doubled_key(lab: Lab) -> None:
    text = "server:\n  port: 1\n  host: a\n  port: 2\n"
    (line,) = refused_at_start(lab, text)
    assert "server.port" in line and "lines 2 and 4" in line
    refused_at_reload(lab, text)
