"""The base view of all endpoints. What the schema documents is what a view accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.api.pagination import check_parameters
from boilerhouse.core.errors import FieldError, Invalid, PreconditionFailed
from boilerhouse.process import budgets
from boilerhouse.web import idempotency
from boilerhouse.web.response_bytes import shares_of
from boilerhouse.web.waiting import Waiting

S = TypeVar("S", bound="serializers.Serializer[Any]")
LONG_ANSWER_BYTES = 1 << 16
"""A response above this size keeps its slow-request slot until it is sent, because its client may read slowly. Other
responses free the slot as soon as their thread is free; otherwise the next request would be refused."""


class ApiView(APIView):
    """Checks query parameters, bodies, ``If-Match`` and ``Idempotency-Key`` before a handler runs."""

    http_method_names = ["get", "head", "post", "put", "delete"]
    lane = ""
    """The priority class whose threads serve the view: ``claim``, ``slow`` (waits for the engine or a sink), or that of
    all other views."""
    volatile: frozenset[str] = frozenset()
    """Fields that report a condition of the object and are not part of its ETag."""

    is_public = False
    """Whether the view needs no key. A key is then ignored, so a wrong one does not matter."""

    def get_authenticators(self) -> list[Any]:
        return [] if self.is_public else list(super().get_authenticators())

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        self._record: idempotency.Record | None = None
        super().initial(request, *args, **kwargs)
        self._take_place(request, kwargs)
        handler = getattr(self, request.method.lower(), None)
        if request.method.lower() not in self.http_method_names or handler is None:
            return  # a 405
        if any("\0" in value for name, value in kwargs.items() if name != "tenant_id"):
            raise NotFound  # no id contains NUL, and PostgreSQL rejects it
        check_parameters(request, handler.query_parameters)
        resumed = getattr(request._request, "resumed", None)
        if request.method == "POST":
            if resumed is not None:
                self._record = resumed.idempotency
            else:
                shares = shares_of(request.auth, _about(kwargs))
                self._record = idempotency.begin(request, shares, self.still_holds)
        if not handler.takes_body:
            _refuse_body(request)
        elif resumed is None and not handler.is_body_optional and not request._request.body:
            raise ParseError("The request needs a body: a JSON object.")

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._inputs: list[Any] = []
        self._hold: budgets.Hold | None = None
        is_kept = False
        try:
            response: Any = super().dispatch(request, *args, **kwargs)
            if self._hold is not None and isinstance(response, Response):
                response.render()
                is_kept = len(response.content) > LONG_ANSWER_BYTES
                if is_kept:
                    response._resource_closers.append(self._hold.release)
            return response
        finally:
            if self._hold is not None and not is_kept:
                self._hold.release()
            self._forget_body()

    def _forget_body(self) -> None:
        """View, request and serializers form reference cycles, which would keep their memory until the garbage
        collector runs."""
        request: Any = self.request
        request._data = request._files = request._full_data = request._stream = None
        request._request._body = b""
        for serializer in self._inputs:
            serializer.initial_data = serializer._validated_data = None

    def _take_place(self, request: Any, of: Mapping[str, Any]) -> None:
        """Each tenant and each key may use only part of the threads for requests that wait for the engine or a sink."""
        if self.lane != "slow":
            return
        named = [budgets.tenant(of["tenant_id"])] if "tenant_id" in of else []
        if "container_id" in of:
            named.append(budgets.container(of["container_id"]))
        self._hold = budgets.slow.enter(*budgets.owners(request.auth, *named))

    def still_holds(self, response: HttpResponse) -> bool:
        """Whether the stored response to this POST may be returned again."""
        return True

    def handle_exception(self, exc: Exception) -> Response:
        try:
            return super().handle_exception(exc)
        except Exception:
            if self._record is not None:
                idempotency.abandon(self._record)
            raise

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if response.status_code == 429 and request.auth is not None:
            response.key_id = request.auth.pk  # the client may take its time (core.refusals)
        record = getattr(self, "_record", None)
        if isinstance(response, Waiting):
            response.idempotency = record
        elif record is not None:
            if not getattr(response, "is_rendered", True):
                response.render()
            idempotency.end(record, response)
        return response

    def read(self, serializer: type[S], **context: Any) -> S:
        """Return the validated request body. Raises errors that become 400, 415 or 422."""
        body = serializer(data=self.request.data, context=context)
        self._inputs.append(body)
        body.is_valid(raise_exception=True)
        return body

    def shown(self, data: Any, status: int = 200) -> Response:
        """The response that shows one object, with its ETag."""
        return Response(data, status=status, headers={"ETag": self.etag(data)})

    def etag(self, data: Mapping[str, Any]) -> str:
        kept = {name: value for name, value in data.items() if name not in self.volatile}
        text = json.dumps(kept, sort_keys=True, cls=DjangoJSONEncoder)
        return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'

    def check_match(self, data: Mapping[str, Any]) -> None:
        """Raise PreconditionFailed unless ``If-Match`` is absent, ``*`` or names ``data``."""
        wanted = self.request.headers.get("If-Match")
        if wanted is None or wanted.strip() == "*":
            return
        if self.etag(data) not in [tag.strip() for tag in wanted.split(",")]:
            raise PreconditionFailed


def _about(path: Mapping[str, Any]) -> str:
    """The tenant named by the request's path, or the tenant assigned to the container in it."""
    tenant_id = path.get("tenant_id") or (budgets.container(path["container_id"]).id if "container_id" in path else "")
    return tenant_id.replace("\0", "")[:128]  # the path is not validated yet, and a row is written


def _refuse_body(request: Any) -> None:
    if request.method in SAFE_METHODS or not request._request.body:
        return
    if not isinstance(request.data, dict):
        raise Invalid(FieldError("", "This operation takes no body.", "invalid"))
    if request.data:
        raise Invalid(*(FieldError(f"/{name}", "Unknown field.", "unknown") for name in sorted(request.data)))
