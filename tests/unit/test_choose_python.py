"""Which Python `make` takes, of what stands in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "choose-python.sh"


def chosen(*folders: Path) -> str:
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run(
        [shell, str(SCRIPT)],
        env={"PATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def interpreter(folder: Path, name: str, says: str) -> Path:
    """One that answers the question of the script with ``says``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("here", "there", "takes"),
    [
        ("echo plain", "echo guided", "there"),
        ("echo guided", "echo guided", "here"),
        ("echo plain", "echo plain", "here"),
        ("exit 1", "echo plain", "there"),  # without venv, say
        (":", "echo plain", "there"),  # older than 3.11
        ("exit 1", ":", ""),
    ],
)
def test_of_two(tmp_path: Path, here: str, there: str, takes: str) -> None:
    """Rather one built with profile guidance, else the first that is usable."""
    found = {
        "here": interpreter(tmp_path / "a", "python3.12", here),
        "there": interpreter(tmp_path / "b", "python3", there),
    }
    assert chosen(tmp_path / "a", tmp_path / "b") == str(found.get(takes, ""))


def test_a_real_one(tmp_path: Path) -> None:
    """What runs these tests is usable, so it is found."""
    tmp_path.joinpath("python3").symlink_to(sys.executable)
    # A link out of an environment is the Python that the environment was made with.
    assert chosen(tmp_path) == str(tmp_path / "python3")


def test_nothing_in_path(tmp_path: Path) -> None:
    """Nothing is printed: make says what is needed."""
    assert chosen(tmp_path) == ""
