"""The base view of all endpoints. What the schema documents is what a view accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.response import Response
from rest_framework.views import APIView

from boilerhouse.api.pagination import check_parameters
from boilerhouse.core.all_or_nothing import all_or_nothing
from boilerhouse.core.errors import FieldError, Invalid, PreconditionFailed
from boilerhouse.core.events import is_recording
from boilerhouse.core.sqlite_gate.base import DatabaseBusy
from boilerhouse.process import budgets
from boilerhouse.web import idempotency, problems
from boilerhouse.web.response_bytes import shares_of
from boilerhouse.web.waiting import Waiting

log = structlog.get_logger(__name__)

S = TypeVar("S", bound="serializers.Serializer[Any]")
LONG_ANSWER_BYTES = 1 << 16
"""A response above this size keeps its slow-request slot until it is sent, because its client may read slowly. Other
responses free the slot as soon as their thread is free; otherwise the next request would be refused."""


class _IsError(Exception):
    """Rolls back a request whose handler answered with an error."""

    def __init__(self, response: Any) -> None:
        self.response = response


class ApiView(APIView):
    """Checks query parameters, bodies, ``If-Match`` and ``Idempotency-Key`` before a handler runs.

    A handler that changes something, its rendered response and the stored response are one transaction (ADR 67).
    """

    http_method_names = ["get", "head", "post", "put", "delete"]
    lane = ""
    """The priority class whose threads serve the view: ``claim``, ``slow`` (waits for the engine or a sink), or that of
    all other views."""
    volatile: frozenset[str] = frozenset()
    """Fields that report a condition of the object and are not part of its ETag."""

    _record: idempotency.Record | None
    """Its stored response is still missing."""
    _stored_record: idempotency.Record | None
    """Its stored response is in the transaction of the change."""
    _fuller: Callable[[], Response] | None

    is_public = False
    """Whether the view needs no key. A key is then ignored, so a wrong one does not matter."""

    def get_authenticators(self) -> list[Any]:
        return [] if self.is_public else list(super().get_authenticators())

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        handler = getattr(self, request.method.lower(), None)
        if request.method.lower() not in self.http_method_names or handler is None:
            return  # a 405
        self._take_place(request, kwargs)
        if any("\0" in value for name, value in kwargs.items() if name != "tenant_id"):
            raise NotFound  # no id contains NUL, and PostgreSQL rejects it
        check_parameters(request, handler.query_parameters)
        resumed = getattr(request._request, "resumed", None)
        if request.method == "POST" and not self.is_public:  # keys of retries belong to an API key
            if resumed is not None:
                self._record = resumed.idempotency
            else:
                shares = shares_of(request.auth, _about(kwargs))
                self._record = idempotency.begin(request, shares, self.still_holds)
        if not handler.takes_body:
            _refuse_body(request)
        elif resumed is None and not handler.is_body_optional and not request._request.body:
            raise ParseError("The request needs a body: a JSON object.")

    def answer_change(self, handler: Callable[[], Any]) -> Any:
        """The handler's response, rendered. If it is an error, or anything raises, nothing has changed."""
        try:
            with all_or_nothing():
                response = self.finalize_response(self.request, handler())
                if response.status_code >= 400:
                    raise _IsError(response)
        except _IsError as error:
            return error.response
        except BaseException:
            self._record, self._stored_record = (
                self._record or self._stored_record,
                None,
            )  # the stored response was rolled back
            raise
        return response if self._fuller is None else self._fuller_than(response)

    def answer_act(self, handler: Callable[[], Any]) -> Any:
        """The rendered response of a handler that does what cannot be rolled back."""
        self._has_acted = True
        return self.finalize_response(self.request, handler())

    def show_later(self, response: Callable[[], Response]) -> None:
        """Answer with this response, of what is known after the commit; if that fails, with the handler's."""
        self._fuller = response

    def _fuller_than(self, response: Any) -> Any:
        assert self._fuller is not None
        try:
            fuller = super().finalize_response(self.request, self._fuller())
            fuller.render()
            if self._stored_record is not None:
                idempotency.amend(self._stored_record, fuller)
        except Exception as error:
            log.error("response not amended", error=type(error).__name__, exc_info=True)
            return response
        return fuller

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._inputs: list[Any] = []
        self._hold: budgets.Hold | None = None
        self._record = self._stored_record = self._fuller = None
        self._has_acted = False
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
        if isinstance(exc, DatabaseBusy) and self._record is not None:
            idempotency.let_go(self._record)
            self._record = None
        try:
            return super().handle_exception(exc)
        except Exception:
            if self._record is not None:
                idempotency.abandon(self._record)
            if not self._has_acted:
                raise
            return self._outcome_unknown()  # type: ignore[no-any-return]  # DRF takes any response

    def _outcome_unknown(self) -> Any:
        """After an unexpected error of what cannot be rolled back."""
        log.error("unhandled error", path=self.request.path, exc_info=True)
        self._record = None
        detail = "Internal error. The work may have been done: repeat the request, or read the object, to learn of it."
        return problems.problem(500, "outcome_unknown", f"{detail} Search the log for the request id.")

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if response.status_code == 429 and request.auth is not None:
            response.key_id = request.auth.pk  # the client may take its time (core.refusals)
        if isinstance(response, Waiting):
            response.idempotency = self._record
            return response
        if not getattr(response, "is_rendered", True):
            response.render()
        self._keep(response)
        return response

    def _keep(self, response: Any) -> None:
        """Store the response for a retry: in the transaction of the change, otherwise after what was done."""
        if self._record is None:
            return
        if is_recording():
            if response.status_code < 400:
                idempotency.end(self._record, response)
                self._stored_record, self._record = self._record, None
            return  # an error is rolled back first
        idempotency.settle(self._record, response)
        self._record = None

    def read(self, serializer: type[S], **context: Any) -> S:
        """Return the validated request body. Raises errors that become 400, 415 or 422."""
        body = serializer(data=self.request.data, context=context)
        self._inputs.append(body)
        body.is_valid(raise_exception=True)
        return body

    def with_etag(self, data: Any, status: int = 200) -> Response:
        """The response that shows one object, with its ETag."""
        return Response(data, status=status, headers={"ETag": self.etag(data)})

    def etag(self, data: Mapping[str, Any]) -> str:
        content = {name: value for name, value in data.items() if name not in self.volatile}
        text = json.dumps(content, sort_keys=True, cls=DjangoJSONEncoder)
        return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'

    def check_match(self, data: Mapping[str, Any]) -> None:
        """Raise PreconditionFailed unless ``If-Match`` is absent, ``*`` or names ``data``."""
        condition = self.request.headers.get("If-Match")
        if condition is None or condition.strip() == "*":
            return
        if self.etag(data) not in [tag.strip() for tag in condition.split(",")]:
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
