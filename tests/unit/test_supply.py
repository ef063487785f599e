"""What we depend on: stated whole, pinned, and quiet at interpreter start."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom

from tests.docs.lock import pins

ROOT = Path(__file__).resolve().parents[2]


def test_the_bill_of_materials_is_valid_and_says_what_the_lock_says() -> None:
    runs = [
        subprocess.run(
            [sys.executable, ROOT / "deploy" / "sbom.py"], capture_output=True, text=True
        )
        for _ in range(2)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    bill = json.loads(runs[0].stdout)
    read: Any = Bom.from_json(bill)  # type: ignore[attr-defined]
    assert len(read.components) == len(bill["components"])
    assert read.validate()
    stated = {one["name"]: one["version"] for one in bill["components"]}
    assert stated == pins(ROOT / "requirements.lock")
    assert all(one["properties"] for one in bill["components"])
    direct = next(row for row in bill["dependencies"] if row["ref"] == "tokenweir")["dependsOn"]
    assert {"pkg:pypi/aiohttp@" + stated["aiohttp"], "pkg:pypi/redis@" + stated["redis"]} <= set(
        direct
    )
    unlicensed = [one["name"] for one in bill["components"] if "licenses" not in one]
    assert unlicensed == []


def test_nothing_that_we_run_on_hooks_into_the_interpreters_start() -> None:
    running = set(pins(ROOT / "requirements.lock"))
    hooks = {}
    for held in metadata.distributions(path=[sysconfig.get_paths()["purelib"]]):
        name = (held.metadata["Name"] or "").lower().replace("_", "-")
        if name in running:
            found = [str(file) for file in held.files or () if str(file).endswith(".pth")]
            found += [str(f) for f in held.files or () if Path(str(f)).name in _START]
            if found:
                hooks[name] = found
    assert hooks == {}


_START = {"sitecustomize.py", "usercustomize.py"}
