"""``tokenweir forget``: erase a user, a project or a key everywhere.

Owns: the command's options, its order of work, and what it prints. Must never:
begin without a yes, or claim that something was erased that was not.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from proxy import config, forgetting
from proxy.config import ConfigError, Settings
from proxy.forgetting import Name
from proxy.forgetting_store import in_force, in_store
from proxy.history.markers import ImportBusyError
from proxy.store.errors import StoreError
from proxy.store.store import Store

_PATIENCE_SECONDS = 60.0
_STORE_TIMEOUT_SECONDS = 5.0


def forget(
    user: Annotated[str | None, typer.Option(help="A user's name, as it was sent.")] = None,
    project: Annotated[str | None, typer.Option(help="A project's name.")] = None,
    key: Annotated[
        str | None, typer.Option(help="A key's fingerprint: key_ and 12 digits.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The proxy's configuration file.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Erase a name from journal, imports, memories, counters, incidents and alerts.

    Their calls stay as numbers without a name, so that totals and bills don't change. A
    running proxy of this data directory does its part within seconds. The store is
    shared: with several replicas, run it once on each, for its own files.

    Examples:  tokenweir forget --user alice@example.com   ·   tokenweir forget --project atlas
    """
    console = Console(stderr=True)
    given = {"user": user, "project": project, "key": key}
    names = [Name(what, value) for what, value in given.items() if value]
    if len(names) != 1:
        raise typer.BadParameter("name exactly one of --user, --project and --key")
    [name] = names
    try:
        settings = config.load(config_file) if config_file else Settings()
    except ConfigError as error:
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(2) from None
    home = (data_dir or settings.data_dir).expanduser()
    if not yes:
        typer.confirm(f"Forget {name.dimension} {name.value}? This can't be undone.", abort=True)
    try:
        asyncio.run(_forget(settings, home, name))
    except (StoreError, ImportBusyError, TimeoutError, OSError) as error:
        console.print(f"not finished: {error}; run it again", markup=False, highlight=False)
        raise typer.Exit(1) from None


async def _forget(settings: Settings, home: Path, name: Name) -> None:
    """Workers first, so that none writes back what was erased."""
    found: Counter[str] = Counter()
    workers = forgetting.busy_workers(home)
    if workers:
        found.update(await _ask(home, name, workers))
    found.update(forgetting.in_data_dir(home, name))
    patient = settings.store.model_copy(
        update={"timeout_seconds": _STORE_TIMEOUT_SECONDS, "query_timeout_seconds": 60.0}
    )
    store = await Store.open(patient, home, worker="forget")
    try:
        found.update(await in_store(store, name))
        standing = in_force(store, name)
        rewritten = await _rewrite(store)
    finally:
        await store.stop()
    typer.echo(f"forgotten: {name.dimension}")
    for what, count in found.items():
        typer.echo(f"  {count:>9,} {what}")
    if not rewritten:
        typer.echo("the store's append-only file keeps old writes until BGREWRITEAOF is run there")
    if standing:
        typer.echo(
            f"still in force, and naming it until they end or are released: {', '.join(standing)}"
        )
    if name.dimension == "key":
        typer.echo("an issued key's own record stays: tokenweir keys disable")
    typer.echo("the audit trail is kept as it is; see docs/privacy.md")


async def _rewrite(store: Store) -> bool:
    """Let the store write its log anew, which still holds the old writes."""
    try:
        await store.link.command("BGREWRITEAOF")
    except StoreError:
        return False
    return True


async def _ask(home: Path, name: Name, workers: int) -> Counter[str]:
    identity = secrets.token_hex(8)
    forgetting.ask(home, identity, name)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(done := forgetting.answers(home, identity)) < workers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(done)} of {workers} running workers have answered")
            await asyncio.sleep(0.2)
    finally:
        forgetting.settle(home, identity)
    return sum((Counter(one) for one in done), Counter())
