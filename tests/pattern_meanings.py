"""File names, and the patterns that match each of them."""

from __future__ import annotations

FILES = ["a.pt", "b.log", "sub/c.pt", "sub/d.log", "sub/x/e.log", "z/[odd].txt"]
MEANINGS = {
    "*.pt": {"a.pt"},
    "**/*.log": {"b.log", "sub/d.log", "sub/x/e.log"},
    "sub/**": {"sub/c.pt", "sub/d.log", "sub/x/e.log"},
    "sub/*.log": {"sub/d.log"},
    "*.{pt,log}": {"a.pt", "b.log"},
    "?.pt": {"a.pt"},
    "[ab].*": {"a.pt", "b.log"},
    "**": set(FILES),
    "sub/*/e.log": {"sub/x/e.log"},
}
