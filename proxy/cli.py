"""The command `tokenweir`.

Owns: the list of commands and how they are loaded, each only when it is called.
Must never: import a command's module before it is needed; start-up time is felt.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from proxy.version import VERSION

#: name -> (module:function, one line for the overview)
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("proxy.commands.serve:serve", "Start the proxy."),
    "demo": ("proxy.commands.demo:demo", "Watch a runaway agent being found and stopped."),
    "status": ("proxy.commands.hand:status", "What is in force, and how things are."),
    "block": ("proxy.commands.hand:block", "Block a key, an agent, a model, ... by hand."),
    "throttle": ("proxy.commands.hand:throttle", "Throttle by hand."),
    "release": ("proxy.commands.hand:release", "Lift a block or a throttle."),
    "keys": ("proxy.commands.keys:app", "Create, list, disable, rotate keys of the proxy."),
    "explain": ("proxy.commands.explain:explain", "What would happen to a call now, and why."),
    "check": ("proxy.commands.check:check", "Check a configuration file; print its schema."),
    "backtest": (
        "proxy.commands.backtest:backtest",
        "Replay observations through engine and policy.",
    ),
    "report": ("proxy.commands.report:report", "Spend, anomalies and forecasts of a period."),
    "doctor": ("proxy.commands.doctor:doctor", "Check upstreams, store, clock, ports and limits."),
    "import": ("proxy.commands.import_:import_", "Bring in history from elsewhere."),
    "export": ("proxy.commands.export:export", "Take observations out."),
    "simulate": ("proxy.commands.simulate:simulate", "A fire drill over your own traffic."),
    "tune": ("proxy.commands.tune:tune", "Propose limits and sensitivities from history."),
    "forget": ("proxy.commands.forget:forget", "Erase a user, a project or a key everywhere."),
}


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and build one command."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row[0].partition(":")
        return _command(getattr(importlib.import_module(module), attribute), cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The overview, from the table alone."""
        formatter.write_usage("tokenweir", "[--version] COMMAND [--help] ...")
        formatter.write_paragraph()
        formatter.write_text("Meters every LLM call and stops what runs away.")
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        formatter.write_paragraph()
        formatter.write_text("Begin with: tokenweir serve")
        formatter.write_text("Shell completion: tokenweir --install-completion")


def _command(target: Any, name: str) -> Any:
    app = target
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
        app.command(name)(target)
    command = typer.main.get_command(app)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, pretty_exceptions_show_locals=False)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Meters every LLM call and stops what runs away."""
    if version:
        typer.echo(f"tokenweir {VERSION}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def main() -> None:
    """The console script."""
    app(prog_name="tokenweir")


if __name__ == "__main__":
    main()
