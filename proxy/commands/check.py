"""``tokenweir check``: every fault of a configuration file, or its JSON Schema.

Owns: the offline checker's output and exit status. Must never: start anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from proxy import config


def check(
    file: Annotated[
        Path | None, typer.Argument(help="The file to check.", show_default=False)
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema for editors instead.")
    ] = False,
) -> None:
    """Print every fault as file:line:column: path: what. Exit 0: none, 2: some.

    Examples:  tokenweir check tokenweir.yaml   ·   tokenweir check --schema
    """
    if schema:
        typer.echo(json.dumps(config.schema(), indent=2))
        return
    if file is None:
        raise typer.BadParameter("name a file, or give --schema")
    try:
        settings = config.load(file)
    except config.ConfigError as error:
        typer.echo(str(error), err=True)
        count = len(error.faults)
        typer.echo(f"{count} {'fault' if count == 1 else 'faults'}", err=True)
        raise typer.Exit(2) from None
    rules = len(settings.limits) + len(settings.budgets)
    typer.echo(
        f"{file}: no fault. mode {settings.mode}, {len(settings.all_upstreams)} upstreams, "
        f"{len(settings.policies.rules)} policies, {rules} limits and budgets."
    )
