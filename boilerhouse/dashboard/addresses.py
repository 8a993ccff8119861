"""The address of a list: its filters are parameters, and every link to the same list changes some of them."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest, QueryDict

LONGEST = 200
PLACE = ("page", "before", "after", "until", "seen", "format")
"""Where in a list a page is. A link that changes a filter begins at the newest row."""


class Address:
    """The path and query of a request. Values are without NUL, which no database takes, and at most 200 characters."""

    def __init__(self, request: HttpRequest) -> None:
        self.path, self._query = request.path, request.GET

    def get(self, name: str) -> str:
        return _clean(self._query.get(name, ""))

    @property
    def q(self) -> str:
        return self.get("q")

    def all(self, name: str) -> list[str]:
        """Each value once, in order."""
        return list(dict.fromkeys(filter(None, map(_clean, self._query.getlist(name)))))

    def url(self, **changes: str | Sequence[str] | None) -> str:
        """The same list with these parameters; None or an empty list removes one. It begins at the newest row."""
        return self._url({**dict.fromkeys(PLACE), **changes})

    def place(self, **changes: str | None) -> str:
        """The same list, filtered alike, at another place or as a file."""
        return self._url({**dict.fromkeys(PLACE), **changes})

    def before(self, name: str) -> str:
        """The query of the same list up to this parameter, which follows it."""
        url = self.url(**{name: None})
        return f"{url[1:]}&" if url.startswith("?") else ""

    def hidden(self, *shown: str) -> list[tuple[str, str]]:
        """The parameters that a filter form carries along unseen: all but those that it ``shown`` as fields."""
        left_out = {*PLACE, *shown}
        return [(name, value) for name in self._query if name not in left_out for value in self.all(name)]

    def _url(self, changes: dict[str, str | Sequence[str] | None]) -> str:
        query = QueryDict(mutable=True)
        for name in self._query:
            if name not in changes and (values := self.all(name)):
                query.setlist(name, values)
        for name, value in changes.items():
            if value:
                query.setlist(name, [value] if isinstance(value, str) else list(value))
        text = query.urlencode()
        return f"?{text}" if text else self.path


def _clean(value: str) -> str:
    return value.replace("\0", "").strip()[:LONGEST]
