"""The sections of a page: an open page gets those that have changed, and 304 if none has (ADR 86).

A section is a ``section`` of ``main`` that is not part of another; ``main`` without them, and the navigation, count as
sections too. Each carries the digest of its content. A refresh names the digests that the browser has. A section that
it has is answered by an empty element of the same id, which the browser does not touch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from django.http import HttpRequest, HttpResponse
from django.utils.http import http_date

UNTOUCHED = "BH-Untouched"
"""A request's header: ids of sections that are to stay as they are, because no event has touched them."""
CACHED = "private, no-cache"
DIGEST_BYTES = 6
_TAG = re.compile(r'<(/?)section\b((?:[^>"]|"[^"]*")*)>')
_NAME = re.compile(r'\b(id|aria-labelledby)="([^"]+)"')
_MAIN = re.compile(r"<main\b[^>]*\bhx-trigger=")
"""A page that is refreshed; others are left as they are."""
_NAV = re.compile(r'<nav class="nav" id="nav".*?</nav>', re.DOTALL)
_CHANGES_BY_ITSELF = re.compile(
    r'(<time [^>]*data-rel="[^"]*"[^>]*>)[^<]*|<time [^>]*data-as-of>[^<]*'
    r'|(name="(?:csrfmiddlewaretoken|form_id)" value=")[^"]*'
)
"""What differs in each rendering: ages and times of reading, which the browser counts itself, and tokens and ids of
forms."""


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    html: str
    digest: str

    @property
    def marked(self) -> str:
        """With its id and digest."""
        opening = self.html[: self.html.index(">")]
        own_id = "" if f' id="{self.id}"' in opening else f' id="{self.id}"'
        return self.html.replace("<section", f'<section{own_id} data-etag="{self.digest}"', 1)

    @property
    def place(self) -> str:
        return f'<section id="{self.id}" data-same></section>'


def is_refresh(request: HttpRequest) -> bool:
    """Whether an open page requests its refresh: htmx then replaces its ``main`` and navigation."""
    return bool(request.htmx) and request.htmx.target == "main"  # type: ignore[attr-defined]


def digest_of(html: str) -> str:
    """Equal for two renderings of the same state."""
    return blake2b(_CHANGES_BY_ITSELF.sub(r"\1\2", html).encode(), digest_size=DIGEST_BYTES).hexdigest()


def split(main: str) -> list[str | Section]:
    """``main`` as its sections and what is between them. A section without a name of its own is between them."""
    parts: list[str | Section] = []
    names: set[str] = {"main", "nav"}
    depth = begin = end = 0
    for tag in _TAG.finditer(main):
        if not tag[1]:
            begin = begin if depth else tag.start()
            depth += 1
            continue
        depth -= 1
        if depth == 0 and (name := _name_of(main[begin : tag.end()])) and name not in names:
            html = main[begin : tag.end()]
            parts += [main[end:begin], Section(name, html, digest_of(html))]
            names.add(name)
            end = tag.end()
    return [*parts, main[end:]]


def _name_of(html: str) -> str:
    """The section's id, or one that follows from its heading's; empty if it has neither."""
    opening = _TAG.match(html)
    attributes = dict(_NAME.findall(opening[2])) if opening else {}
    heading = attributes.get("aria-labelledby")
    return str(attributes.get("id") or (f"s-{heading}" if heading else ""))


def mark(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """The response with its sections marked; of a refresh, only what the browser lacks, or 304."""
    text = response.content.decode()
    begin, nav = _MAIN.search(text), _NAV.search(text)
    if begin is None or nav is None:
        return response
    end = text.index("</main>", begin.start())
    parts = split(text[begin.start() : end])
    frame = digest_of("".join(part if isinstance(part, str) else part.place for part in parts))
    sections = [part for part in parts if isinstance(part, Section)]
    own_nav = digest_of(nav[0])
    etag = f'"{".".join([frame, own_nav, *(one.digest for one in sections)])}"'
    has: set[str] = set()
    if is_refresh(request):
        known = set(re.findall(r"[0-9a-f]{12}", request.headers.get("If-None-Match", "")))
        untouched = set(request.headers.get(UNTOUCHED, "").split())
        everything = [("main", frame), ("nav", own_nav), *((one.id, one.digest) for one in sections)]
        has = {id for id, digest in everything if digest in known or id in untouched}
        if len(has) == len(everything):
            response = HttpResponse(status=304)
            del response["Content-Type"]
            return _of_refresh(response, etag)
    body = "".join(part if isinstance(part, str) else part.place if part.id in has else part.marked for part in parts)
    body = body.replace("<main", f'<main data-etag="{frame}"', 1)
    shown_nav = "" if "nav" in has else nav[0].replace("<nav", f'<nav data-etag="{own_nav}"', 1)
    response.content = text[: nav.start()] + shown_nav + text[nav.end() : begin.start()] + body + text[end:]
    if is_refresh(request):
        return _of_refresh(response, etag)
    response.setdefault("Cache-Control", CACHED)
    return response


def _of_refresh(response: HttpResponse, etag: str) -> HttpResponse:
    """With what the browser needs to know of it: the digests, and when it was read, which pages show."""
    response["ETag"] = etag
    response["Date"] = http_date()
    response.setdefault("Cache-Control", CACHED)
    return response
