"""``python -m tests.docs.generated``: write the parts of the docs that the code knows best.

Owns: the tables of metrics.md, cli.md and headers.md, between the two marks in each.
Must never: touch a line outside the marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import typer.main

from proxy.cli import COMMANDS, app
from proxy.http import identity
from proxy.metrics_catalogue import CATALOGUE, Metric

DOCS = Path(__file__).resolve().parents[2] / "docs"
_WORDS = {str: "text", int: "number", float: "number", Path: "path", bool: "flag"}
_MERGED = {"max": "greatest", "min": "least"}
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def metrics() -> str:
    """A table of every metric."""
    lines = ["| metric | kind | labels | what it is |", "| --- | --- | --- | --- |"]
    for metric in CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        lines.append(
            f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{_more(metric)} |"
        )
    return "\n".join(lines)


def _more(metric: Metric) -> str:
    words = []
    if metric.buckets:
        words.append(f"Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}.")
    if metric.labels:
        words.append(f"At most {metric.max_series} label sets.")
    if metric.merge != "sum":
        words.append(f"Of several workers the {_MERGED[metric.merge]} is shown.")
    return "".join(f" {word}" for word in words)


def commands() -> str:
    """A section for each command, from its own ``--help``."""
    group = typer.main.get_command(app)
    parts = []
    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        parts += _command(command, f"tokenweir {name}")
    return "\n".join(parts).strip()


def _command(command: Any, path: str) -> Iterator[str]:
    text = _plain(command.help or "").partition("Examples:")[0]
    yield f"## {path}\n\n{' '.join(text.split())}\n"
    shown = examples(command.help or "")
    if shown:
        yield "```sh\n" + "\n".join(shown) + "\n```\n"
    children = getattr(command, "commands", {})
    rows = [
        f"| `{_name(p)}` | {_value(p)} | {_plain(getattr(p, 'help', '') or '')} |"
        for p in command.params
        if p.name != "help" and not getattr(p, "hidden", False)
    ]
    if rows:
        yield "\n".join(["| | value | |", "| --- | --- | --- |", *rows]) + "\n"
    for name, child in children.items():
        yield from (part.replace("## ", "### ", 1) for part in _command(child, f"{path} {name}"))


def examples(text: str) -> list[str]:
    """The command lines that a help text shows."""
    shown = text.partition("Examples:")[2].split("·")
    return [line for part in shown if (line := " ".join(part.split()))]


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.display_name_raw).upper()
    return ", ".join(sorted(parameter.opts, key=len, reverse=True))


def _value(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "flag"
    word = _kind(parameter.type_descriptor.annotation)
    if parameter.required:
        return f"{word}, required"
    if parameter.default in (None, (), [], "", ...) or callable(parameter.default):
        return word
    return f"{word}, `{getattr(parameter.default, 'value', parameter.default)}`"


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is not None:
        return " or ".join(_kind(a) for a in get_args(annotation) if a is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _plain(text: str) -> str:
    return re.sub(r"\[/?\w+\]", "", text).replace("|", "\\|").strip()


def headers() -> str:
    """What names whom, in the order in which it wins."""
    rows = (
        ("agent", identity.AGENT_FIELDS),
        ("project", identity.PROJECT_FIELDS),
        ("user", identity.USER_FIELDS),
        ("session", identity.SESSION_FIELDS),
        ("tags", (*identity.TAG_FIELDS, f"{identity.PROPERTY}*")),
        ("several at once", identity.METADATA_FIELDS),
    )
    lines = ["| names the | header, the first wins |", "| --- | --- |"]
    lines += [f"| {what} | {', '.join(f'`{name}`' for name in names)} |" for what, names in rows]
    return "\n".join(lines)


PAGES = {"metrics.md": metrics, "cli.md": commands, "headers.md": headers}


def renewed(page: str) -> str:
    """The page's text as it should be.

    Raises
    ------
    ValueError
        If the page has lost its marks.
    """
    text = (DOCS / page).read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no marks {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{PAGES[page]()}\n{END}{tail}"


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(renewed(name))
        print(f"docs/{name} written")
