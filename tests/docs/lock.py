"""``python -m tests.docs.lock``: is every dependency pinned, with hashes, as wished?

Owns: the comparison of pyproject.toml and the lock files. Must never: ask a
registry; what is on disk must fit together.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def pins(path: Path) -> dict[str, str]:
    """Names and versions of a lock file; ValueError where one has no hash."""
    found = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", path.read_text()):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if match is None:
            continue
        if "--hash=sha256:" not in block:
            raise ValueError(f"{path.name}: {match[1]} has no hash")
        found[canonicalize_name(match[1])] = match[2]
    return found


def faults() -> list[str]:
    """What doesn't fit."""
    found = []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = pins(ROOT / "requirements.lock")
    tests = pins(ROOT / "tests" / "requirements.lock")
    for text in project["dependencies"]:
        wish = Requirement(text)
        version = runtime.get(canonicalize_name(wish.name))
        if version is None:
            found.append(f"requirements.lock: {wish.name} is missing")
        elif not wish.specifier.contains(version, prereleases=True):
            found.append(f"requirements.lock: {wish.name}=={version} does not fit {wish.specifier}")
    for line in (ROOT / "tests" / "requirements.in").read_text().splitlines():
        if line and not line.startswith(("#", "-")):
            name = canonicalize_name(Requirement(line).name)
            if name not in tests and name not in runtime:
                found.append(f"tests/requirements.lock: {name} is missing")
    for name, version in tests.items():
        if runtime.get(name, version) != version:
            found.append(f"{name}: {runtime[name]} in one lock, {version} in the other")
    found.extend(
        f"{path.name}: names a host"
        for path in (ROOT / "requirements.lock", ROOT / "tests" / "requirements.lock")
        if re.search(r"https?://|^-{1,2}(index|extra|find)", path.read_text(), re.MULTILINE)
    )
    return found


if __name__ == "__main__":
    problems = faults()
    print("\n".join(problems) or "the lock fits")
    sys.exit(bool(problems))
