"""What the admin server is given by whoever wires the process.

Owns: the one value that every route module receives. Must never: build a part
itself, or hold behaviour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.admin.events import EventHub
from proxy.admin.health import Health
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings
from proxy.metrics import RuntimeMetrics


@dataclass(slots=True)
class AdminDeps:
    """Parts and answers that admin routes need.

    Parts that a process runs without are ``None``; their routes then answer 503
    with the reason, and the dashboard shows its own state for it.

    ``scrape`` gives the exposition of all workers; ``mode`` the word in force
    (``observe``, ``shadow``, ``enforce``); ``data_url`` how clients reach the
    data port, for the first steps. ``background`` holds what route modules want run
    beside the server until it stops.
    """

    settings: AdminSettings
    data_dir: Path
    clock: Callable[[], float]
    version: str
    scrape: Callable[[], Awaitable[str]]
    mode: Callable[[], str]
    data_url: Callable[[], str]
    reader: Reader
    runtime: RuntimeMetrics = field(default_factory=RuntimeMetrics)
    health: Health = field(default_factory=Health)
    hub: EventHub = field(default_factory=EventHub)
    environ: Mapping[str, str] = field(default_factory=dict)
    store: Any = None
    ledger: Any = None
    engine: Any = None
    gate: Any = None
    control: Any = None
    keys: Any = None
    incidents: Any = None
    alerts: Any = None
    drills: Any = None
    shadowed: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    config: Callable[[], Any] | None = None
    reload: Callable[[], Awaitable[Any]] | None = None
    background: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
