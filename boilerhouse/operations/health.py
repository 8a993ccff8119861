"""Liveness and readiness. Liveness depends on nothing outside the process."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from rest_framework import serializers
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import FailingStep, Process
from boilerhouse.process import processes
from boilerhouse.queues.service import unserved_queues
from pools import packet_filter
from pools.runtime import get_runtime


class HealthOutput(serializers.Serializer[Any]):
    status = serializers.CharField()
    version = serializers.CharField()


class ReadyOutput(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ready", "not_ready"])
    checks = serializers.DictField(child=serializers.CharField(), help_text="`ok`, or the reason")
    failingSteps = serializers.ListField(
        child=serializers.CharField(),
        help_text="Steps of controllers and watchers that fail each time. They do not affect readiness.",
    )


class HealthView(ApiView):
    is_public = True

    @operation(operation_id="getHealth", summary="Check that the web process is alive", auth=[], responses=HealthOutput)
    def get(self, request: Any) -> Response:
        return Response({"status": "ok", "version": settings.VERSION})


class ReadyView(ApiView):
    is_public = True

    @operation(
        operation_id="getReadiness",
        summary="Check each dependency",
        auth=[],
        responses={200: ReadyOutput, 503: ReadyOutput},
    )
    def get(self, request: Any) -> Response:
        checks = readiness()
        is_ready = all(answer == "ok" for answer in checks.values())
        answer: dict[str, Any] = {"status": "ready" if is_ready else "not_ready", "checks": checks}
        answer |= {"failingSteps": failing_steps() if checks["database"] == "ok" else []}
        return Response(answer, status=200 if is_ready else 503)


def failing_steps() -> list[str]:
    return list(FailingStep.objects.order_by("name").values_list("name", flat=True))


def readiness() -> dict[str, str]:
    """``ok`` or the problem, for database, engine, workers, controller and network."""
    checks: dict[str, str] = {}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        checks["database"] = "ok"
        living = processes.living()
        kinds = set(Process.objects.filter(pk__in=living).values_list("kind", flat=True))
        silent = unserved_queues()
        checks["workers"] = "ok"
        if Process.Kind.WORKER not in kinds:
            checks["workers"] = "no worker is running"
        elif silent:
            problems = [f"{name} has not been served for {seconds} s" for name, seconds in silent.items()]
            checks["workers"] = "; ".join(problems)
        checks["controller"] = "ok" if Process.Kind.CONTROLLER in kinds else "no controller is running"
        checks["network"] = "; ".join(packet_filter.problems()) or "ok"
    except DatabaseError as error:
        checks["database"] = type(error).__name__
    try:
        get_runtime().ping(timeout_s=2)
        checks["engine"] = "ok"
    except BoilerhouseError as error:
        checks["engine"] = error.detail
    return checks
