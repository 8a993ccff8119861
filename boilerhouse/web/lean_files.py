"""Style sheets, scripts and pages of ours as browsers receive them: without comments and indentation.

Lines of files keep their numbers, so an error of a script names the line of its source. Files of others, which are in
folders, are left as they are.
"""

from __future__ import annotations

import re

_CSS = re.compile(r'("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')|/\*.*?\*/', re.DOTALL)
_JS = re.compile(r"^[ \t]*//[^\n]*$", re.MULTILINE)
_INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)
_VERBATIM = re.compile(rb"(<(?:pre|textarea)\b.*?</(?:pre|textarea)>)", re.DOTALL)
_BETWEEN_TAGS = re.compile(rb">\n\s+<")


def lean(name: str, content: bytes) -> bytes:
    """The content of the file of this name below ``static/``, shorter where that changes nothing that it does.

    Of a script, only lines that hold nothing but a comment go. A script with text over several lines (a template
    literal) is left as it is, because its indentation may be part of the text.
    """
    if "/" in name or not name.endswith((".css", ".js")):
        return content
    text = content.decode()
    if name.endswith(".css"):
        text = _CSS.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text)
    elif any(line.count("`") % 2 for line in text.split("\n")):
        return content
    else:
        text = _JS.sub("", text)
    return _INDENTATION.sub("", text).encode()


def lean_page(html: bytes) -> bytes:
    """The page with a line break for each line break and white space between two tags; text stays as it is."""
    parts = _VERBATIM.split(html)
    for number in range(0, len(parts), 2):  # each is between two tags
        parts[number] = _BETWEEN_TAGS.sub(b">\n<", b">" + parts[number] + b"<")[1:-1]
    return b"".join(parts)
