"""The API's page is what the API says of itself."""

from __future__ import annotations

from tests.docs.api import PAGE, page


def test_the_page_is_in_step_with_the_served_document() -> None:
    assert PAGE.read_text() == page(), "renew it: python -m tests.docs.api"
