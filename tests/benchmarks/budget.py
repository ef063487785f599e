"""A budget under fire: is it ever overspent, and is any of it lost?

``python -m tests.benchmarks.budget [--json FILE] [--runs N] [--clients N]``

$1.00 for each run, 500 concurrent clients, three real proxies on one store,
mixed models, streams and sizes. The provider keeps its own bill. Runs with
``max_tokens`` given, runs without, and runs in which one proxy is killed with
-9 in the middle; after its lease has expired the others spend the remainder, then
it is started again.

``worst_overshoot_…``  the provider's bill above the budget, the worst run.
``leaked_nano_usd``    what is neither counted as spent nor can be spent: after the
                       lease has expired, and again once the killed proxy is back.
``litellm_…``          LiteLLM's proxy with a provider budget of the same size on one
                       Redis, three of them, the same clients; null where it is not
                       installed (``tests/benchmarks/peers.sh``).
``cut_off_nano_usd``   what was counted above the provider's bill: calls that the
                       kill (or a client's end) cut off count as they were estimated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import _budget_litellm
from tests.benchmarks._budget_provider import (
    PRICES,
    SMALL_NANO_USD,
    Provider,
    Spent,
    client,
)
from tests.rig import Proxy, Upstream, end_store, start_proxy
from tests.unit.store.support import Server

LIMIT = 1_000_000_000
REPLICAS = 3
_SETTLE_SECONDS = 2.5
_EXPIRY_SECONDS = 11.0


def settings(upstream: str, store: str) -> dict[str, Any]:
    """One budget for each project; nothing else may stop a call."""
    return {
        "upstreams": {"openai": {"base_url": upstream + "/v1", "max_connections": 2000}},
        "store": {"url": store, "timeout_seconds": 1.0},
        "keys": {"install_secret": "benchmark"},
        "detection": {"enabled": False},
        "budgets": [{"name": "run", "amount_usd": 1.0, "per": "month", "by": ["project"]}],
        "pricing": {
            "overrides": [
                {"provider": "*", "model": model, "prices": {"input": price[0], "output": price[1]}}
                for model, price in PRICES.items()
            ]
        },
    }


class Fleet:
    """Three proxies, and the way to kill one and start it again."""

    def __init__(self, folder: Path, configuration: dict[str, Any]) -> None:
        self._folder = folder
        self._configuration = configuration
        self.proxies = [self._start(n) for n in range(REPLICAS)]

    def _start(self, number: int) -> Proxy:
        folder = self._folder / f"replica-{number}"
        return start_proxy(folder, self._configuration, ready_seconds=180)

    def kill(self, number: int) -> None:
        """End one as a crash would."""
        self.proxies[number].process.send_signal(signal.SIGKILL)
        self.proxies[number].process.wait(5)

    def restart(self, number: int) -> None:
        """Start it again over its own data."""
        self.proxies[number] = self._start(number)

    def stop(self) -> None:
        """End all."""
        for proxy in self.proxies:
            with contextlib.suppress(Exception):
                proxy.stop()
            end_store(proxy.data_dir)

    def budget(self, run: str) -> dict[str, Any]:
        """The budget of a run as the first proxy shows it."""
        for row in self.proxies[0].api("/api/v1/budgets")["budgets"]:
            if row["values"] == [run]:
                assert isinstance(row, dict)
                return row
        raise AssertionError(f"no budget for {run}")


async def one_run(
    fleet: Fleet, provider: Provider, run: str, clients: int, *, with_max_tokens: bool, kill: bool
) -> dict[str, Any]:
    """Spend a budget to its end, and look at what is left."""
    spent = Spent()
    began = time.monotonic()
    tasks = [
        asyncio.create_task(
            client(fleet.proxies[i % REPLICAS].port, run, i, spent, with_max_tokens=with_max_tokens)
        )
        for i in range(clients)
    ]
    if kill:
        while provider.bill[run] < LIMIT // 3:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(fleet.kill, REPLICAS - 1)
    await asyncio.gather(*tasks)
    seconds = time.monotonic() - began
    lost = after_expiry = 0
    if kill:
        await asyncio.sleep(_EXPIRY_SECONDS)
        await spend_the_rest(fleet, run, spent)
        row = fleet.budget(run)
        lost, after_expiry = leaked(row), row["withheld"]
        await asyncio.to_thread(fleet.restart, REPLICAS - 1)
    await asyncio.sleep(_SETTLE_SECONDS)
    await spend_the_rest(fleet, run, spent)
    row, bill = fleet.budget(run), provider.bill[run]
    return {
        "run": run,
        "calls": provider.calls[run],
        "refused": spent.refused,
        "throttled": spent.throttled,
        "broken": spent.broken,
        "seconds": round(seconds, 2),
        "billed_nano_usd": bill,
        "counted_nano_usd": row["used"],
        "overshoot_nano_usd": max(0, bill - LIMIT),
        "unspent_nano_usd": max(0, LIMIT - bill),
        "leaked_nano_usd": max(lost, leaked(row)),
        "cut_off_nano_usd": max(0, row["used"] + row["withheld"] - bill),
        "withheld_until_restart_nano_usd": after_expiry,
    }


async def spend_the_rest(fleet: Fleet, run: str, spent: Spent) -> None:
    """One client at one proxy, ever cheaper calls, until nothing fits."""
    port = fleet.proxies[0].port
    await client(port, run, 2, spent, with_max_tokens=True, tries=12)
    await client(port, run, 3, spent, with_max_tokens=True, small=True)
    await asyncio.sleep(_SETTLE_SECONDS)


def leaked(row: dict[str, Any]) -> int:
    """What nobody spent and nobody can spend, of a budget that refuses the cheapest call."""
    free = LIMIT - row["used"] - row["withheld"] - SMALL_NANO_USD
    return max(0, int(free), int(row["reserved"]))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs."""
    provider = Provider(seed=1)
    rows: dict[str, list[dict[str, Any]]] = {"with": [], "without": [], "killed": []}
    with Upstream(provider) as upstream, tempfile.TemporaryDirectory() as folder:
        server = Server()
        fleet = Fleet(Path(folder), settings(upstream.url, server.url))
        try:
            for kind, count in (
                ("with", options.runs),
                ("without", options.runs),
                ("killed", options.kills),
            ):
                for n in range(count):
                    row = await one_run(
                        fleet,
                        provider,
                        f"{kind}-{n}",
                        options.clients,
                        with_max_tokens=kind != "without",
                        kill=kind == "killed",
                    )
                    print(json.dumps(row), flush=True)
                    rows[kind].append(row)
        finally:
            fleet.stop()
            server.close()
        peers = await litellm(Path(folder), provider, upstream, options)
    return summary(rows, options) | peers


async def litellm(
    folder: Path, provider: Provider, upstream: Upstream, options: argparse.Namespace
) -> dict[str, Any]:
    """LiteLLM's worst overshoot with the same clients, ``None`` where it is not installed."""
    found: dict[str, Any] = {}
    for kind in ("with_max_tokens", "without"):
        name = f"litellm_worst_overshoot_nano_usd_{kind}"
        found[name] = None
        if _budget_litellm.installed(folder):
            for n in range(options.litellm_runs):
                row = await _budget_litellm.one_run(
                    folder / f"{kind}-{n}",
                    provider,
                    upstream,
                    options.clients,
                    with_max_tokens=kind == "with_max_tokens",
                )
                found[name] = max(found[name] or 0, row["overshoot_nano_usd"])
    return found


def summary(rows: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    """The numbers that matter."""

    def worst(kinds: tuple[str, ...], name: str) -> int:
        return max((row[name] for kind in kinds for row in rows[kind]), default=0)

    return {
        "runs": options.runs,
        "runs_with_kill": options.kills,
        "clients": options.clients,
        "replicas": REPLICAS,
        "limit_nano_usd": LIMIT,
        "worst_overshoot_nano_usd_with_max_tokens": worst(("with", "killed"), "overshoot_nano_usd"),
        "worst_overshoot_nano_usd_without": worst(("without",), "overshoot_nano_usd"),
        "leaked_nano_usd": worst(("with", "without", "killed"), "leaked_nano_usd"),
        "worst_unspent_nano_usd": worst(("with", "without", "killed"), "unspent_nano_usd"),
        "worst_cut_off_nano_usd": worst(("with", "without", "killed"), "cut_off_nano_usd"),
        "withheld_until_restart_nano_usd": worst(("killed",), "withheld_until_restart_nano_usd"),
        "calls": sum(row["calls"] for kind in rows.values() for row in kind),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--litellm-runs", type=int, default=1)
    parser.add_argument("--clients", type=int, default=500)
    options = parser.parse_args()
    result = asyncio.run(measure(options))
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
