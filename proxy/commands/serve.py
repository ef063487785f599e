"""``tokenweir serve``: settings from file, environment and flags, then run.

Owns: the command's flags. Must never: build parts of the proxy itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import proxy.lean  # noqa: F401  before all that it keeps small
from proxy import config


def serve(
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", envvar="TOKENWEIR_CONFIG", help="YAML file; none: defaults."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of both ports.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Data port. [default: 8787]", min=0, max=65_535)
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Admin port. [default: 8788]", min=0, max=65_535)
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="embedded:// or redis://… (also rediss, sentinel, cluster).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Journal, embedded store, keys. [default: ~/.tokenweir]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the data port.", min=1)] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Start the proxy.

    Examples:  tokenweir serve   ·   tokenweir serve --config tokenweir.yaml --workers 2
    """
    from proxy.workers import run  # heavy: only for this command

    overrides = Overrides(host, port, admin_port, store, data_dir, workers)
    try:
        settings = overrides.apply(config.load(config_file) if config_file else config.defaults())
    except config.ConfigError as error:
        for line in error.lines():
            typer.secho(line, fg="red", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(
        run(
            settings,
            overrides=overrides.apply,
            config_file=config_file,
            log_json=log_json or not os.isatty(2),
            verbose=verbose,
        )
    )


class Overrides:
    """What the flags say, put over a file's settings now and at each reload."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        admin_port: int | None = None,
        store: str | None = None,
        data_dir: Path | None = None,
        workers: int | None = None,
    ) -> None:
        server = {"host": host, "port": port, "admin_port": admin_port, "workers": workers}
        self._server = {name: value for name, value in server.items() if value is not None}
        self._store = store
        self._data_dir = data_dir

    def apply(self, settings: config.Settings) -> config.Settings:
        """The settings with the flags over them, checked like a file's."""
        changed: dict[str, object] = {}
        if self._server:
            changed["server"] = settings.server.model_copy(update=self._server)
        if self._store is not None:
            changed["store"] = settings.store.model_copy(update={"url": self._store})
        if self._data_dir is not None:
            changed["data_dir"] = self._data_dir.expanduser().absolute()
        return settings.model_copy(update=changed) if changed else settings
