"""What a page lets its reader do, read from its HTML: links, forms with what they would send, and names of elements."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from urllib.parse import urlencode

REFERENCES = (
    "for",
    "aria-labelledby",
    "aria-describedby",
    "aria-controls",
    "popovertarget",
    "commandfor",
    "form",
    "list",
)
"""Attributes that name other elements of the page by their ids."""
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])


@dataclass(frozen=True, slots=True)
class Submission:
    """What pressing one button of a form sends."""

    method: str
    action: str
    fields: tuple[tuple[str, str], ...]
    button: str
    """The words on it."""
    asks: bool
    """Whether the page opens a question instead of leaving."""

    @property
    def query(self) -> str:
        return urlencode(self.fields)


@dataclass(slots=True)
class _Form:
    method: str
    action: str
    asks: bool
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[Submission] = field(default_factory=list)


class Markup(HTMLParser):
    """A page, or a part of one. Everything but ``ids`` and ``references`` is of its ``main``."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: Counter[str] = Counter()
        self.references: set[tuple[str, str]] = set()
        """Attribute and id."""
        self.links: list[str] = []
        self.forms: list[_Form] = []
        self.alerts = 0
        self._named: dict[str, _Form] = {}
        self._open: list[str] = []
        self._form: _Form | None = None
        self._select: tuple[_Form, str, list[tuple[str, bool]]] | None = None
        self._textarea: tuple[_Form, str, list[str]] | None = None
        self._button: tuple[_Form, Submission, list[str]] | None = None
        self.feed(text)
        self.close()

    @property
    def submissions(self) -> list[Submission]:
        """One per button; each with all fields of its form as they are when the page opens."""
        return [
            replace(button, fields=(*form.fields, *button.fields)) for form in self.forms for button in form.buttons
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        if "id" in about:
            self.ids[about["id"]] += 1
        for name in REFERENCES:
            self.references |= {(name, one) for one in about.get(name, "").split()}
        if about.get("role") in ("alert", "note") or "data-toast" in about:
            self.alerts += 1
        if tag not in VOID:
            self._open.append(tag)
        if tag == "form":
            method = about.get("method", "get").lower()
            self._form = _Form(method, about.get("action", ""), "data-ask" in about)
            self._named[about.get("id", "")] = self._form
            if "main" in self._open or "dialog" in self._open:
                self.forms.append(self._form)
        if tag == "a" and "main" in self._open and "href" in about:
            self.links.append(about["href"])
        form = self._named.get(about.get("form", ""), self._form)
        if form is not None:
            self._handle_field(tag, about, form)

    def _handle_field(self, tag: str, about: dict[str, str], form: _Form) -> None:
        name, value, kind = about.get("name", ""), about.get("value", ""), about.get("type", "")
        if tag == "input" and name and (kind not in ("checkbox", "radio") or "checked" in about):
            form.fields.append((name, value))
        elif tag == "select" and name:
            self._select = (form, name, [])
        elif tag == "option" and self._select:
            self._select[2].append((value, "selected" in about))
        elif tag == "textarea" and name:
            self._textarea = (form, name, [])
        elif tag == "button" and kind != "button":
            own = ((name, value),) if name else ()
            action, method = about.get("formaction", form.action), about.get("formmethod", form.method)
            self._button = (form, Submission(method.lower(), action, own, "", form.asks), [])

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self._textarea[2].append(data)
        if self._button:
            self._button[2].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "select" and self._select:
            form, name, options = self._select
            chosen = next((value for value, is_selected in options if is_selected), options[0][0] if options else "")
            form.fields.append((name, chosen))
            self._select = None
        elif tag == "textarea" and self._textarea:
            form, name, parts = self._textarea
            form.fields.append((name, "".join(parts)))
            self._textarea = None
        elif tag == "button" and self._button:
            form, button, parts = self._button
            form.buttons.append(replace(button, button=" ".join("".join(parts).split())))
            self._button = None
        elif tag == "form":
            self._form = None

    def problems(self, elsewhere: Counter[str] | None = None) -> list[str]:
        """Ids that are there twice, and names of elements that are not there (nor in ``elsewhere``)."""
        there = self.ids + (elsewhere or Counter())
        twice = [f"two elements have the id {name}" for name, count in self.ids.items() if count > 1]
        there["question-t"] += 1  # the title of the dialog, which is empty until a question is asked
        return twice + [
            f"{attribute}={name} names nothing" for attribute, name in sorted(self.references) if name not in there
        ]
