"""Pages are compressed, unless they show a secret.

Whoever can choose a part of a compressed page and measure its length can guess the rest (BREACH). The CSRF token is
masked anew in each answer, and Django adds random padding. What shows a secret once is ``no-store``, and goes out as it
is; so does everything of the API (ADR 80).
"""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware


class CompressedPages(GZipMiddleware):
    """Compresses HTML that was requested with GET and may be stored."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_page = response.get("Content-Type", "").startswith("text/html") and request.method in ("GET", "HEAD")
        if not is_page or "no-store" in response.get("Cache-Control", "") or "/api/" in request.path_info:
            return response
        return super().process_response(request, response)
