"""Serve the OpenAPI schema and the page that shows it, and describe the API's authentication."""

from __future__ import annotations

import gzip
import hashlib
import threading
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import extend_schema
from rest_framework.views import APIView

from boilerhouse.web.problems import problem


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "boilerhouse.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "bh_…"}


class _Document:
    """The schema document. It depends only on the code, so each process builds and compresses it once, on first use.

    The document has a megabyte, and anyone may request it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_made = False

    def make(self) -> None:
        """Build the document: afterwards ``plain``, ``packed`` and ``etag`` are set."""
        with self._lock:
            if not self._is_made:
                schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
                self.plain: bytes = OpenApiJsonRenderer().render(schema)
                self.packed = gzip.compress(self.plain, mtime=0)
                self.etag = f'"{hashlib.sha256(self.plain).hexdigest()[:32]}"'
                self._is_made = True


_document = _Document()


class SchemaView(APIView):
    """``GET /openapi.json``."""

    is_public = True
    authentication_classes = ()
    renderer_classes = (OpenApiJsonRenderer,)

    @extend_schema(exclude=True)
    def get(self, request: Any) -> HttpResponse:
        _document.make()
        headers = {"ETag": _document.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if _document.etag in request.headers.get("If-None-Match", ""):
            return HttpResponseNotModified(headers=headers)
        is_packed = "gzip" in request.headers.get("Accept-Encoding", "")
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        body = _document.packed if is_packed else _document.plain
        return HttpResponse(body, content_type=OpenApiJsonRenderer.media_type, headers=headers)


@csrf_exempt  # the page has no form; other methods get the API's usual 405
def docs(request: HttpRequest) -> HttpResponse:
    """``GET /docs``: the schema as an interactive page, from files shipped with Boilerhouse."""
    if request.method not in ("GET", "HEAD"):
        detail = f'Method "{request.method}" not allowed.'
        return problem(405, "method_not_allowed", detail, headers={"Allow": "GET, HEAD"})
    return render(request, "api/docs.html")
