"""Style sheets and scripts of ours as browsers receive them: without comments and indentation.

Lines keep their numbers, so an error of a script names the line of its source. Files of others, which are in folders,
are left as they are.
"""

from __future__ import annotations

import re

_CSS = re.compile(r'("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')|/\*.*?\*/', re.DOTALL)
_JS = re.compile(r"^[ \t]*//[^\n]*$", re.MULTILINE)
_INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)


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
