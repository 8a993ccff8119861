"""The table of pages and states has every page of the URL table."""

from __future__ import annotations

from boilerhouse.dashboard import search
from tests import page_table
from tests.page_table import NOT_PAGES, OBJECTS, OF_A_SELECTION, OF_A_SESSION, PARTS, QUESTIONS, SIGNED_OUT


def test_every_page_and_every_question_of_the_url_table_is_in_the_table():
    """A new page is walked in all of its states, or says here why it cannot be."""
    views = {name: route.callback for name, route in page_table.routes().items()}
    actions = {name for name, view in views.items() if getattr(view, "is_action", False)}
    asking = {name for name in actions if views[name].asks}  # type: ignore[attr-defined]
    walked = {*page_table.LISTS, *OBJECTS}
    assert set(views) - actions == walked | PARTS | OF_A_SESSION | SIGNED_OUT | NOT_PAGES
    assert asking == {*QUESTIONS, *OF_A_SELECTION}


def test_the_palette_knows_every_page_that_needs_no_object():
    """Containers, the node and notifications were not found by their names."""
    assert {one.url_name for one in search.PAGES} == {*page_table.LISTS} - {"search", "password_change"}
