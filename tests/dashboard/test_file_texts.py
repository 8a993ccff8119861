"""Contents of files as text: what a form can carry unchanged, and how two texts differ."""

from __future__ import annotations

import pytest

from boilerhouse.dashboard import file_texts

pytestmark = pytest.mark.any_database


@pytest.mark.parametrize("data", [b"a\0b", b"\xff\xfe", b"abc\xe2\x82", "ü".encode("latin-1") + b" is not UTF-8"])
def test_what_is_no_text_is_binary(data):
    assert file_texts.read(data, is_whole=True) is None


def test_a_character_that_the_end_of_a_part_cuts_is_left_out():
    data = "price: 5 €".encode()
    for cut in (1, 2):
        text = file_texts.read(data[:-cut], is_whole=False)
        assert text is not None
        assert text.text == "price: 5 "
        assert text.why_not, "a part is not edited"


@pytest.mark.parametrize(
    ("data", "newlines"),
    [
        (b"", "lf"),
        (b"one line", "lf"),
        (b"a\nb\n", "lf"),
        (b"a\r\nb\r\n", "crlf"),
        ("ä€😀\n".encode(), "lf"),
        (b"\n\nx", "lf"),
    ],
)
def test_a_text_that_can_be_edited_comes_back_as_the_same_bytes(data, newlines):
    """A browser sends CRLF, whatever the lines ended with."""
    text = file_texts.read(data, is_whole=True)
    assert text is not None
    assert (text.why_not, text.newlines) == ("", newlines)
    sent = file_texts.plain(text.text).replace("\n", "\r\n")
    assert file_texts.encode(sent, text.newlines) == data


@pytest.mark.parametrize("data", [b"a\r\nb\n", b"a\rb", b"a\n\r", b"bell \x07", "\u202egnp.exe".encode(), b"\x1b[2J"])
def test_a_text_that_a_form_would_change_is_not_edited(data):
    text = file_texts.read(data, is_whole=True)
    assert text is not None
    assert text.why_not


def test_what_a_form_sent_is_refused_if_a_page_would_write_it_out():
    assert not file_texts.why_not_sent("tab\tand\nlines", 13)
    assert "control characters" in file_texts.why_not_sent("a\u202eb", 5)
    assert "256 KiB" in file_texts.why_not_sent("x", file_texts.VIEWED + 1)


def test_a_diff_shows_changed_lines_with_those_around_them():
    old = "\n".join(f"line {number}" for number in range(1, 101))
    new = old.replace("line 40\n", "line forty\n").replace("line 90\n", "")
    shown = file_texts.diff(old, new)
    assert [line for line in shown if line[0]] == [
        ("del", "- line 40"), ("add", "+ line forty"), ("del", "- line 90"),
    ]  # fmt: skip
    words = [line for _, line in shown]
    assert "  line 39" in words
    assert "  line 41" in words
    assert "  line 60" not in words
    assert not file_texts.diff(old, old)
    assert not file_texts.diff("a\r\nb", "a\nb"), "how lines end is not what a form changes"


def test_only_an_added_last_line_differs():
    assert [line for line in file_texts.diff("a\n", "a\nb\n") if line[0]] == [("add", "+ b")]
    assert file_texts.diff("", "new\n") == [("", "line 1"), ("add", "+ new")]


def test_a_line_that_nothing_ends_says_so():
    assert [line for line in file_texts.diff("a\n", "a") if line[0]] == [
        ("del", "- a"),
        ("add", f"+ a{file_texts.UNENDED}"),
    ]


def test_lines_after_the_change_are_not_compared_with_those_in_it():
    """The empty line at the end of what was added was shown as an old one, and the end of the text as added."""
    old, new = "# Plan\n\n- one\n- two\n", "# Plan\n\n- one\n- three\n\nAnd an end.\n"
    assert file_texts.diff(old, new) == [
        ("", "line 1"), ("", "  # Plan"), ("", "  "), ("", "  - one"), ("del", "- - two"), ("add", "+ - three"), ("add", "+ "),
        ("add", "+ And an end."),
    ]  # fmt: skip


def test_comparing_two_long_texts_takes_no_square_of_their_lines():
    """100,000 lines that all differ would be compared for minutes."""
    old, new = ("\n".join(f"{word} {number}" for number in range(40_000)) for word in ("old", "new"))
    shown = file_texts.diff(old, new)
    assert sum(kind == "del" for kind, _ in shown) == file_texts.MAX_COMPARED
    assert any("more changed lines" in line for _, line in shown)
