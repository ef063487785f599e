"""The generated parts of the docs are what the code says now."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from proxy.cli import COMMANDS, app
from tests.docs.generated import DOCS, PAGES, examples, renewed


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_in_step(page: str) -> None:
    assert (DOCS / page).read_text() == renewed(page), "run: python -m tests.docs.generated"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    group = typer.main.get_command(app)
    found = [e for text in commands_of(group, name) for e in examples(text)]
    assert found
    for example in found:
        program, command, *words = shlex.split(example)
        assert (program, command) == ("tokenweir", name)
        for word in words:
            if "." in word and "/" not in word and "=" not in word:
                (tmp_path / word).touch()
        group.get_command(None, name).make_context(name, words)


def commands_of(group: Any, name: str) -> list[str]:
    command = group.get_command(None, name)
    children = getattr(command, "commands", {})
    texts = [child.help for child in children.values()] or [command.help]
    assert all("Examples:" in text for text in texts)
    return texts
