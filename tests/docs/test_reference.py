"""The reference of settings is what the models say."""

from __future__ import annotations

from tests.docs import reference


def test_the_page_is_in_step_with_the_models() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run python -m tests.docs.reference"


def test_every_setting_says_what_it_is() -> None:
    bare = [line for line in reference.page().splitlines() if line.endswith("|  |")]
    assert bare == []
