"""The schema as it is served, how it names the API's authentication, and the page that shows it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "boilerhouse.core.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "bh_…"}


class _Made:
    """The schema depends on nothing but the code: it is made once per process, when first asked for."""

    @cached_property
    def schema(self) -> Any:
        return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


_made = _Made()


class SchemaView(APIView):
    """``GET /openapi.json``."""

    is_public = True
    authentication_classes = ()
    renderer_classes = (OpenApiJsonRenderer,)

    @extend_schema(exclude=True)
    def get(self, request: Any) -> Response:
        return Response(_made.schema)


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """``GET /docs``: the schema to read and to try, from files that are part of Boilerhouse."""
    return render(request, "api/docs.html")
