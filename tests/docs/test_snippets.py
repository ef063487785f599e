"""Every command and snippet of README and tutorial, run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proxy import config
from tests.docs.snippets import Block, Reader, blocks_of, reading
from tests.rig import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
README = ROOT / "README.md"


def play(reader: Reader, blocks: list[Block]) -> list[str]:
    """Files are written, commands run; what each block of shell printed."""
    printed = []
    for block in blocks:
        if block.language == "yaml":
            reader.write(block)
        elif block.language == "sh":
            printed.append(reader.run(block))
    return printed


def test_the_tutorial_stops_a_loop(tmp_path: Path) -> None:
    with reading(tmp_path) as reader:
        out = play(reader, blocks_of(TUTORIAL))
        assert "/signin?code=" in reader.printed()
    first, loop = out[2], out[4]
    assert json.loads(first)["usage"]["total_tokens"] > 0
    codes = re.findall(r"\b(200|429)\b(?= )", loop.partition("{")[0])
    assert len(codes) == 150
    assert codes[0] == "200" and codes[-1] == "429"
    assert codes == sorted(codes), "no call passes once the loop is stopped"
    answer = json.loads(loop[loop.index("{") :])
    assert answer["error"]["tokenweir"]["scope"] == "agent refunds"
    status, released, checked, replayed = out[5], out[6], out[7], out[8]
    assert "agent refunds" in status and "block by emergency" in status
    assert "released block of agent refunds" in released
    assert "tutorial.yaml: no fault" in checked
    assert "151 rows" in replayed
    assert int(re.search(r"calls blocked\D+(\d+)", replayed)[1]) > 50


def test_the_readme_says_what_works(tmp_path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    with reading(tmp_path) as reader:
        for block in blocks_of(README):
            if block.language == "yaml":
                reader.write(block)
            if block.language not in ("sh", "console"):
                continue
            for line in commands(block):
                make = re.match(r"make (\w+)$", line)
                if make:
                    assert make[1] in targets
                if make and make[1] != "run":
                    continue  # the tests are these, and the demo has its own
                reader.run(Block("sh", line))
                reader.stop()
        assert reader.ran >= 3
        assert "/signin?code=" in reader.printed()


def commands(block: Block) -> list[str]:
    """The lines that a reader would type, without remarks."""
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [typed for line in lines if (typed := line.split(" #")[0].strip())]


@pytest.mark.parametrize("page", ["migration.md", "dashboard.md", "first-hour.md", "metrics.md"])
def test_settings_shown_elsewhere_load(page: str, tmp_path: Path, monkeypatch) -> None:
    for name in ("ONCALL_TOKEN", "SEARCH_TOKEN", "OIDC_SECRET"):
        monkeypatch.setenv(name, f"a-{name}-long-enough")
    for number, block in enumerate(blocks_of(ROOT / "docs" / page)):
        if block.language == "yaml" and "scrape_configs" not in block.text:
            file = tmp_path / f"{number}.yaml"
            file.write_text(block.text)
            config.load(file)
