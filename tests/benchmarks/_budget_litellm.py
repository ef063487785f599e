"""The same fire on LiteLLM's proxy, where it is installed (see peers.sh).

Owns: three of its proxies on one Redis with a provider budget of the same size.
Must never: count anything; the provider keeps the bill.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks._budget_provider import PRICES, Provider, Spent, client
from tests.benchmarks._peers import litellm
from tests.rig import Upstream, wait_for
from tests.unit.store.support import Server

_START_SECONDS = 180.0
_LONGEST_SECONDS = 120.0


def configuration(upstream: str, store_port: int, dollars: float) -> dict[str, Any]:
    """Two models with the benchmark's prices, and a budget over both."""
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_key": "sk-benchmark",
                "api_base": f"{upstream}/v1",
                "max_retries": 0,
                "input_cost_per_token": given / 1e6,
                "output_cost_per_token": made / 1e6,
            },
        }
        for name, (given, made) in PRICES.items()
    ]
    return {
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        "model_list": models,
        "router_settings": {
            "num_retries": 0,
            "disable_cooldowns": True,
            "redis_host": "127.0.0.1",
            "redis_port": store_port,
            "provider_budget_config": {"openai": {"budget_limit": dollars, "time_period": "30d"}},
        },
    }


@contextlib.contextmanager
def proxies(folder: Path, settings: dict[str, Any], count: int) -> Iterator[list[int]]:
    """The ports of so many proxies, all of them ready."""
    running: list[subprocess.Popen[bytes]] = []
    ports = []
    try:
        for number in range(count):
            port = _free_port()
            home = folder / str(number)
            home.mkdir(parents=True)
            peer = litellm(home, port, 0)
            assert peer is not None
            (home / "litellm.yaml").write_text(yaml.safe_dump(settings))
            with (home / "log").open("wb") as log:
                environment = {**os.environ, **peer.environment}
                running.append(
                    subprocess.Popen(
                        peer.command, cwd=home, env=environment, stdout=log, stderr=log
                    )
                )
            ports.append(port)
        for port in ports:
            wait_for(lambda port=port: _listens(port), _START_SECONDS, "LiteLLM")
        yield ports
    finally:
        for process in running:
            process.kill()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


async def one_run(
    folder: Path, provider: Provider, upstream: Upstream, clients: int, *, with_max_tokens: bool
) -> dict[str, Any]:
    """One budget of a dollar on three fresh proxies."""
    run = f"litellm-{folder.name}"
    server, spent = Server(port=_free_port()), Spent()
    settings = configuration(upstream.url, server.port, 1.0)
    provider.otherwise = run
    try:
        with proxies(folder, settings, 3) as ports:
            calls = [
                asyncio.create_task(
                    client(
                        ports[i % 3],
                        run,
                        i,
                        spent,
                        with_max_tokens=with_max_tokens,
                        any_refusal_is_final=True,
                    )
                )
                for i in range(clients)
            ]
            # Slow is not wrong: what was billed by then is what it let through.
            _, late = await asyncio.wait(calls, timeout=_LONGEST_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    finally:
        provider.otherwise = ""
        server.close()
    bill = provider.bill[run]
    row = {
        "run": run,
        "calls": provider.calls[run],
        "refused": spent.refused,
        "broken": spent.broken,
        "billed_nano_usd": bill,
        "overshoot_nano_usd": max(0, bill - 1_000_000_000),
    }
    print(json.dumps(row), flush=True)
    return row


def installed(folder: Path) -> bool:
    """Whether LiteLLM is there to be measured."""
    return litellm(folder, 0, 0) is not None
