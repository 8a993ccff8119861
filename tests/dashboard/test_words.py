"""What people read on the dashboard: no sentence that only its author can decode comes back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BANNED = (
    "all serve", "nothing needs you", "needs you", "holds something", "asked for by", "why it ended", "deleted there",
    "tried again 0", "gave back", "works again", "its containers follow", "cannot be:", "stays for ever", "for ever",
    "made from the name", "when it is not here", "as it is:", "what is deleted here", "use the paths beside",
    "while it works", "by hand", "which files each mapping means", "kept for,", "probes of sinks",
    "environment of the processes", "who dictates", "programs sign in with them", "held and warm", "claims that wait",
    "open the row", "heard of", "nothing is called", "nothing is here", "you may not", "the last now", "now would be lost",
    "tried 1 times", "somebody", "tell of", "tells of", "what became of", "being released already",
)  # fmt: skip
"""Phrases of the first versions, and of their kind, in lower case."""


def visible(template: str) -> str:
    """The text of a template: without its comments, tags, and the attributes that nobody reads."""
    text = re.sub(r"{% comment %}.*?{% endcomment %}|{%.*?%}|{{.*?}}", " ", template, flags=re.S)
    spoken = " ".join(re.findall(r'\b(?:title|placeholder|aria-label|data-k)="([^"]*)"', text))
    return re.sub(r"\s+", " ", f"{re.sub(r'<[^>]*>', ' ', text)} {spoken}")


def strings(code: str) -> list[str]:
    """The literal texts of a module; docstrings are for programmers."""
    tree = ast.parse(code)
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [str(node.value) for node in texts if id(node) not in bare and " " in str(node.value)]


def sources() -> list[tuple[str, str]]:
    """Each file of the pages and what of it people read."""
    texts = [(path, visible(path.read_text())) for path in sorted((ROOT / "templates").rglob("*.html"))]
    modules = [*(ROOT / "boilerhouse" / "dashboard").rglob("*.py"), *(ROOT / "boilerhouse" / "attention").rglob("*.py")]
    modules += [ROOT / "syncing" / "sink_words.py", ROOT / "boilerhouse" / "core" / "quantities.py"]
    texts += [(path, "\n".join(strings(path.read_text()))) for path in sorted(modules)]
    return [(str(path.relative_to(ROOT)), text) for path, text in texts]


def test_no_banned_phrase_is_read_anywhere():
    hits = [
        (name, phrase) for name, text in sources() for phrase in BANNED if re.search(rf"\b{phrase}", text.lower())
    ]  # fmt: skip
    assert hits == []


@pytest.mark.parametrize("phrase", ["Needs you", "Open the row"])
def test_a_phrase_in_a_template_or_a_module_is_found(phrase):
    assert phrase in visible(f'<p title="{phrase}">x</p>')
    assert phrase in visible(f"<p>\n  {phrase}</p>{{# no #}}")
    assert strings(f'"""{phrase}."""\nx = f"{phrase}: {{y}}"') == [f"{phrase}: "]


def test_texts_use_no_typewriter_dashes_or_doubled_spaces():
    """Three dots and two hyphens are what a typewriter has."""
    hits = [
        (name, line.strip()[:80])
        for name, text in sources()
        for line in text.split("\n")
        if re.search(r"[a-z]\.\.\.(?:\s|$)|[a-z] -- [a-z]", line)
    ]
    assert hits == []
