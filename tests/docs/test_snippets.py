"""Every command and snippet of README and tutorial, run."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
    assert "refunds" in status and "block" in status
    assert "refunds" in released
    assert "tutorial.yaml" in checked or "ok" in checked.lower()
    assert "150" in re.sub(r"\D", "", replayed) or "observations" in replayed
