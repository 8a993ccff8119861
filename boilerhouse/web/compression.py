"""Pages are compressed, unless they show a secret.

Whoever can choose a part of a compressed page and measure its length can guess the rest (BREACH). The CSRF token is
masked anew in each answer, and Django adds random padding. What shows a secret once is ``no-store``, and goes out as it
is; so does everything of the API (ADR 80).
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

from boilerhouse.web.lean_files import lean_page


class CompressedPages(GZipMiddleware):
    """Compresses HTML that was requested with GET and may be stored, and leaves out its indentation."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_page = response.get("Content-Type", "").startswith("text/html") and request.method in ("GET", "HEAD")
        if not is_page or "no-store" in response.get("Cache-Control", "") or "/api/" in request.path_info:
            return response
        takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
        if takes_gzip and isinstance(response, HttpResponse) and not response.streaming:
            _leave_out_indentation(response)
        return super().process_response(request, response)


def _leave_out_indentation(response: HttpResponse) -> None:
    response.content = lean_page(response.content)
    if "Content-Length" in response:  # stays where an answer is too short to be compressed
        response["Content-Length"] = str(len(response.content))
