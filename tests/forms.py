"""The editors' forms, filled in as a browser sends them."""

from __future__ import annotations

import html
import re

from django.http import QueryDict


def form_of(page: str, form: str = "editor") -> QueryDict:
    """What a browser would send of the form with this id."""
    data = QueryDict(mutable=True)
    text = page.split(f'id="{form}">', 1)[1].split("</form>", 1)[0]
    for tag in re.findall(r"<input[^>]*>", text):
        name = re.search(r'name="([^"]*)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        if name and ('type="checkbox"' not in tag or " checked" in tag):
            data[html.unescape(name[1])] = html.unescape(value[1]) if value else ""
    for name_, body in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', text, re.S):
        data[html.unescape(name_)] = html.unescape(body)
    for name_, body in re.findall(r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', text, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', body) or re.search(r'<option value="([^"]*)"', body)
        data[html.unescape(name_)] = html.unescape(chosen[1]) if chosen else ""
    return data
