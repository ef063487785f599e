"""``tokenweir demo``: a runaway agent, found and stopped, with nothing but this machine.

Owns: the scenario's course and its live view. Must never: send anything but to
loopback, or show a number that was not measured in this run.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import orjson
import typer
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from detection.types import Usage
from proxy.demo.agents import HEALTHY, LOOP_STARTS_SECONDS, LOOPER, MODEL, Agent
from proxy.demo.provider import DemoProvider
from proxy.pricing import Pricer, PricingSettings

_PROVIDER_URL = "https://api.openai.com"


def demo(
    seconds: Annotated[float, typer.Option(min=15, max=110, help="How long it runs.")] = 40,
    seed: Annotated[int, typer.Option(help="The same seed gives the same agents.")] = 7,
    provider_port: Annotated[
        int | None,
        typer.Option(help="Only run the local provider on this port, for trials without a key."),
    ] = None,
) -> None:
    """Five healthy agents, one that starts to loop, and what Tokenweir does about it.

    No API key, no network: the provider is a local one. Beside the run, the same agents run
    without Tokenweir, so that what was saved is measured and not guessed.

    Examples:  tokenweir demo   ·   tokenweir demo --provider-port 8790
    """
    console = Console()
    if provider_port is not None:
        asyncio.run(_provide(console, provider_port))
        return
    with tempfile.TemporaryDirectory(prefix="tokenweir-demo-") as folder:
        story = asyncio.run(_Demo(console, Path(folder), seconds, seed).run())
    console.print(story)


async def _provide(console: Console, port: int) -> None:
    """Serve until interrupted."""
    provider = DemoProvider()
    try:
        await provider.start(port)
    except OSError as error:
        console.print(
            f"[red]demo:[/] port {port} can't be used: {os.strerror(error.errno or 0)}",
            highlight=False,
        )
        raise typer.Exit(1) from None
    console.print(f"a provider in OpenAI's format on {provider.url}, until you press Ctrl-C")
    try:
        await asyncio.Event().wait()
    finally:
        await provider.stop()


class _Demo:
    def __init__(self, console: Console, folder: Path, seconds: float, seed: int) -> None:
        self._console = console
        self._folder = folder
        self._seconds = seconds
        self._seed = seed
        self._token = secrets.token_urlsafe(24)
        self._admin = ""
        self._pricer = Pricer(PricingSettings())
        self._events: list[tuple[float, str]] = []
        self._seen: set[str] = set()
        self._began = 0.0
        self._stopped_at: float | None = None
        self._calls_until_stop = 0

    async def run(self) -> Group:
        provider = DemoProvider()
        await provider.start()
        process = await self._start_proxy(provider.url)
        try:
            data_url = await self._ready(process)
            async with aiohttp.ClientSession() as session:
                return await self._play(session, data_url, provider.url)
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
            await provider.stop()

    async def _start_proxy(self, provider_url: str) -> asyncio.subprocess.Process:
        settings = {
            "upstreams": {"openai": {"base_url": provider_url, "provider": "openai"}},
            "server": {"drain_timeout_seconds": 1},
        }
        config = self._folder / "demo.yaml"
        config.write_text(yaml.safe_dump(settings))
        arguments = ["serve", "--config", str(config), "--port", "0", "--admin-port", "0"]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "proxy",
            *arguments,
            "--data-dir",
            str(self._folder / "data"),
            cwd=Path(__file__).resolve().parents[2],
            env={
                **os.environ,
                "TOKENWEIR_ADMIN_TOKEN": self._token,
                "TOKENWEIR_READY_FILE": str(self._folder / "ready.json"),
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=(self._folder / "proxy.log").open("wb"),
        )

    async def _ready(self, process: asyncio.subprocess.Process) -> str:
        ready = self._folder / "ready.json"
        for _ in range(400):
            if ready.exists():
                ports = orjson.loads(ready.read_bytes())
                self._admin = f"http://127.0.0.1:{ports['admin_port']}"
                return f"http://127.0.0.1:{ports['port']}"
            if process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        log = (self._folder / "proxy.log").read_text(errors="replace")[-2000:]
        typer.secho(f"the proxy did not start:\n{log}", fg="red", err=True)
        raise typer.Exit(1)

    async def _play(self, session: aiohttp.ClientSession, data_url: str, direct: str) -> Group:
        names = (*HEALTHY, LOOPER)
        agents = [Agent(n, f"{data_url}/@{n}", self._seed) for n in names]
        twins = [Agent(n, direct, self._seed) for n in names]
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        work = [
            asyncio.create_task(agent.run(session, self._seconds)) for agent in (*agents, *twins)
        ]
        states: dict[str, str] = {}
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            while not all(task.done() for task in work):
                await asyncio.sleep(0.25)
                states = await self._states(session, agents)
                live.update(self._view(agents, twins, states))
        await asyncio.gather(*work)
        counted = {
            row["value"]: row
            for row in (await self._get(session, "/api/v1/usage?by=agent"))["rows"]
        }
        return Group(self._view(agents, twins, states), self._summary(agents, twins, counted))

    async def _get(self, session: aiohttp.ClientSession, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with session.get(self._admin + path, headers=headers) as answer:
            return orjson.loads(await answer.read())

    async def _states(self, session: aiohttp.ClientSession, agents: list[Agent]) -> dict[str, str]:
        now = asyncio.get_running_loop().time() - self._began
        if now >= LOOP_STARTS_SECONDS:
            self._tell("loop", now, f"{LOOPER} begins to repeat one tool call")
        states: dict[str, str] = {}
        for action in (await self._get(session, "/api/v1/actions"))["actions"]:
            scope, kind = action["series"], action["kind"]
            if scope["dimension"] != "agent" or kind not in ("throttle", "block"):
                continue
            name = scope["value"]
            states[name] = "blocked" if kind == "block" else states.get(name, "throttled")
            looper = next(agent for agent in agents if agent.name == LOOPER)
            self._tell(
                f"{kind}:{name}",
                now,
                f"tokenweir: {kind} on {name} ({action.get('reason') or action.get('signal')}), "
                f"after {looper.tally.answered} answered calls",
            )
            if name == LOOPER and kind == "block" and self._stopped_at is None:
                self._stopped_at = now
                self._calls_until_stop = looper.tally.answered
        return states

    def _tell(self, mark: str, now: float, text: str) -> None:
        if mark not in self._seen:
            self._seen.add(mark)
            self._events.append((now, text))

    def _usd(self, agent: Agent) -> float:
        usage = Usage(
            source="reported",
            input_tokens=agent.tally.input_tokens,
            output_tokens=agent.tally.output_tokens,
        )
        price = self._pricer.price(
            "openai", MODEL, usage, upstream_url=_PROVIDER_URL, at=time.time()
        )
        return price.cost_nano_usd / 1e9

    def _view(self, agents: list[Agent], twins: list[Agent], states: dict[str, str]) -> Group:
        now = min(asyncio.get_running_loop().time() - self._began, self._seconds)
        table = Table(expand=True, title=f"{now:4.0f} s of {self._seconds:.0f} s")
        for name in ("agent", "calls", "refused", "spend", "without Tokenweir", "state"):
            table.add_column(name, justify="left" if name in ("agent", "state") else "right")
        for agent, twin in zip(agents, twins, strict=True):
            state = states.get(agent.name, "ok")
            colour = {"ok": "green", "throttled": "yellow", "blocked": "red"}[state]
            table.add_row(
                agent.name,
                f"{agent.tally.answered}",
                f"{agent.tally.refused}",
                f"${self._usd(agent):.3f}",
                f"${self._usd(twin):.3f}",
                Text(state, style=colour),
            )
        events = Text("\n".join(f"{at:5.1f} s  {text}" for at, text in self._events[-6:]))
        return Group(table, Panel(events, title="what happened", title_align="left"))

    def _summary(
        self, agents: list[Agent], twins: list[Agent], counted: dict[str, dict[str, int]]
    ) -> Text:
        spent, without = (sum(self._usd(a) for a in side) for side in (agents, twins))
        healthy = sum(a.tally.refused for a in agents if a.name != LOOPER)
        metered = sum(row["cost_nano_usd"] or 0 for row in counted.values()) / 1e9
        stopped = (
            f"blocked {self._stopped_at - LOOP_STARTS_SECONDS:.1f} s after the loop began"
            if self._stopped_at is not None
            else "not blocked in this run"
        )
        return Text(
            f"{LOOPER}: {stopped}. Spent ${spent:.2f} (metered ${metered:.2f}); the same run "
            f"without Tokenweir: ${without:.2f}. Saved ${without - spent:.2f} in "
            f"{self._seconds:.0f} s. Healthy agents' calls refused: {healthy}.",
            style="bold",
        )
