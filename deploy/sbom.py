"""The bill of materials: ``python deploy/sbom.py > sbom.json`` (CycloneDX 1.6, JSON).

Owns: what the image holds, read from the hash-pinned lock; licences and who needs whom
from what is installed here. Must never: ask a registry, or differ from run to run.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"


def pins(text: str) -> dict[str, tuple[str, list[str]]]:
    """Name to version and SHA-256 sums of a lock file."""
    found = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if match is not None:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            found[name] = (match[2], sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
    return found


def needed_by(text: str) -> dict[str, set[str]]:
    """Name to those that need it, from the lock's own remarks."""
    found: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)==", block)
        if match is not None:
            remarks = block.partition("# via")[2]
            names = re.findall(r"#?\s*([A-Za-z0-9._-]+)(?: \(pyproject\.toml\))?", remarks)
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = {
                re.sub(r"[-_.]+", "-", name).lower() for name in names
            }
    return found


def licences(name: str) -> list[dict[str, Any]]:
    """A package's licence as it states it itself; nothing where it is not installed."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    if expression := stated.get("License-Expression"):
        return [{"expression": expression}]
    classified = sorted(
        value.rpartition(" :: ")[2]
        for value in stated.get_all("Classifier", [])
        if value.startswith("License :: ") and value != "License :: OSI Approved"
    )
    text = [line for line in [str(stated.get("License") or "")] if line and "\n" not in line]
    return [{"license": {"name": one}} for one in classified or text]


def bill(text: str) -> dict[str, Any]:
    """The whole document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    held = pins(text)
    needs = needed_by(text)
    version = re.search(
        r"\"(.+?)\"", (ROOT / "proxy" / "version.py").read_text().split("VERSION")[1]
    )
    own = {
        "type": "application",
        "bom-ref": "tokenweir",
        "name": "tokenweir",
        "version": version[1] if version else "",
        "licenses": [{"license": {"id": project["license"]}}],
    }
    components = []
    for name, (pinned, sums) in sorted(held.items()):
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{pinned}",
            "name": name,
            "version": pinned,
            "purl": f"pkg:pypi/{name}@{pinned}",
            "properties": [{"name": "tokenweir:sha256", "value": value} for value in sums],
        }
        if stated := licences(name):
            component["licenses"] = stated
        components.append(component)
    refs = {name: f"pkg:pypi/{name}@{pinned}" for name, (pinned, _) in held.items()}
    dependencies = [
        {"ref": ref, "dependsOn": sorted(refs[n] for n in held if name in needs[n])}
        for name, ref in [("tokenweir", "tokenweir"), *sorted(refs.items())]
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hashlib.sha256(text.encode()).hexdigest()[:32])}",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": dependencies,
    }


if __name__ == "__main__":
    json.dump(bill(LOCK.read_text()), sys.stdout, indent=1)
    sys.stdout.write("\n")
