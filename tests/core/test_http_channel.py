"""Our classes of Twisted's and daphne's add attributes, and take none of those that the bases keep for themselves."""

from __future__ import annotations

import ast
import inspect

import pytest

from boilerhouse.web import http_channel

MEANT = {
    "Channel": {"persistent", "length", "timeOut"},
    "Request": {"content"},
}  # fmt: skip
"""Attributes of the bases that are set on purpose."""


@pytest.mark.parametrize("name", MEANT)
def test_no_attribute_of_a_base_is_overwritten_by_chance(name):
    """A renamed attribute became the base's buffer of unread lines: no request was answered any more."""
    cls = getattr(http_channel, name)
    stored = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(cls)))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    of_bases = {attribute for base in cls.__mro__[1:] for attribute in vars(base)}
    assert stored & of_bases <= MEANT[name]
