"""The font that pages name is served with its licence, and what stands in for it has its metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"


def faces() -> list[str]:
    return re.findall(r"@font-face \{(.*?)\n\}", (STATIC / "tokens.css").read_text(), re.DOTALL)


@pytest.mark.django_db
def test_the_font_is_served_from_here_and_loaded_with_the_page(client, data_dir):
    [served] = [face for face in faces() if "url(" in face]
    path = re.search(r'url\("(.*?)"\)', served)
    assert path
    file = STATIC / path[1]
    assert file.read_bytes()[:4] == b"wOF2"
    assert "SIL OPEN FONT LICENSE" in (file.parent / "LICENSE").read_text().upper()
    assert "font-display: optional" in served  # a swap would move the text
    page = client.get("/login/").content.decode()
    assert f'href="/static/{path[1]}"' in page
    assert "crossorigin" in page


def test_what_stands_in_has_metrics_for_both_weights():
    stands_in = [face for face in faces() if "local(" in face]
    assert len(stands_in) == 4
    for face in stands_in:
        for name in ("size-adjust", "ascent-override", "descent-override", "line-gap-override"):
            assert f"{name}:" in face
    names = set(re.findall(r'font-family: "(.*?)"', "".join(faces())))
    tokens = re.search(r"--font: (.*);", (STATIC / "tokens.css").read_text())
    assert tokens
    assert all(f'"{name}"' in tokens[1] for name in names)
