"""``tokenweir keys``: create, list, disable, enable, rotate, expire.

Owns: these commands' options and output. Must never: show a secret a second
time; it can't, since the proxy keeps only its hash.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.commands.admin_client import (
    DEFAULT_DATA_DIR,
    DEFAULT_URL,
    AdminClient,
    AdminUrl,
    DataDir,
    segment,
)

app = typer.Typer(
    help="Keys that the proxy issues, and names for those that pass through.",
    no_args_is_help=True,
    add_completion=False,
)

Key = Annotated[str, typer.Argument(help="Id, name or fingerprint.")]
Why = Annotated[str, typer.Option("--why", help="For the refusal and the audit trail.")]
Listed = Annotated[list[str] | None, typer.Option(help="May be given several times; `*` matches.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="A readable name.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    project: Annotated[str | None, typer.Option(help="Its calls count for this project.")] = None,
    model: Listed = None,
    provider: Listed = None,
    budget_usd: Annotated[
        float | None, typer.Option("--budget-usd", help="Most dollars per period.", min=0.000001)
    ] = None,
    per: Annotated[
        str, typer.Option(help="The budget's period: hour, day, week, month.")
    ] = "month",
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", help="Most calls a minute.", min=1)
    ] = None,
    days: Annotated[float | None, typer.Option(help="It ends after so many days.")] = None,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Issue a key. Its secret is shown this once.

    Examples:  tokenweir keys create --name ci --project build --budget-usd 20 --per month
    """
    body: dict[str, Any] = {
        "name": name,
        "owner": owner,
        "project": project,
        "models": model or [],
        "providers": provider or [],
        "expires_in_seconds": None if days is None else days * 86_400,
    }
    if budget_usd is not None:
        body["budgets"] = [{"name": "budget", "amount_usd": budget_usd, "per": per, "by": ["key"]}]
    if requests_per_minute is not None:
        body["limits"] = [{"name": "requests", "requests": requests_per_minute, "by": ["key"]}]
    made = AdminClient(admin_url, data_dir).post("/api/v1/keys", body)
    _show_secret(made)


@app.command("list")
def list_(admin_url: AdminUrl = DEFAULT_URL, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """All keys that the proxy issued, and named or disabled others.

    Examples:  tokenweir keys list
    """
    table = Table("id", "key", "name", "owner", "project", "state", "ends")
    for key in AdminClient(admin_url, data_dir).get("/api/v1/keys")["keys"]:
        ends = key.get("expires_at")
        over = ends is not None and ends <= time.time()
        state = "disabled" if key.get("disabled") else "expired" if over else "active"
        cells = [str(key.get(n) or "") for n in ("id", "key", "name", "owner", "project")]
        ends_at = "" if ends is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(ends))
        table.add_row(*(Text(cell) for cell in (*cells, state, ends_at)))
    Console().print(table)


@app.command()
def disable(
    key: Key,
    why: Why = "",
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Refuse a key everywhere, until a person enables it; its streams are cut.

    Examples:  tokenweir keys disable key_0123456789ab --why "leaked"
    """
    _change(AdminClient(admin_url, data_dir), key, "disable", {"reason": why})
    typer.echo(f"{key} is disabled")


@app.command()
def enable(
    key: Key, admin_url: AdminUrl = DEFAULT_URL, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Let a disabled key in again.

    Examples:  tokenweir keys enable ci
    """
    _change(AdminClient(admin_url, data_dir), key, "enable", {})
    typer.echo(f"{key} is enabled")


@app.command()
def rotate(
    key: Key,
    overlap_seconds: Annotated[
        float | None, typer.Option("--overlap-seconds", help="How long the old secret still works.")
    ] = None,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Give a key a new secret; its name, limits and history stay.

    Examples:  tokenweir keys rotate ci --overlap-seconds 3600
    """
    body = {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}
    _show_secret(_change(AdminClient(admin_url, data_dir), key, "rotate", body))


@app.command()
def expire(
    key: Key,
    in_days: Annotated[float, typer.Option("--in-days", help="0 ends it now.", min=0)] = 0.0,
    admin_url: AdminUrl = DEFAULT_URL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Set a key's end.

    Examples:  tokenweir keys expire ci --in-days 30
    """
    client = AdminClient(admin_url, data_dir)
    made = _change(client, key, "expire", {"in_seconds": in_days * 86_400})
    ends = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made["expires_at"]))
    typer.echo(f"{made['id']} ends {ends}")


def _change(client: AdminClient, key: str, verb: str, body: dict[str, Any]) -> Any:
    return client.post(f"/api/v1/keys/{segment(key)}/{verb}", body)


def _show_secret(made: dict[str, Any]) -> None:
    typer.echo(f"id      {made['id']}\nkey     {made['key']}\nsecret  {made['secret']}")
    typer.echo("The secret is shown this once; use it where a provider's key goes.", err=True)
