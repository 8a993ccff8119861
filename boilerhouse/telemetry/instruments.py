"""Metrics of requests, streams and tasks."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, gauge, histogram

HTTP_REQUESTS = counter("http_requests_total", "Answered requests.", "method", "route", "status")
HTTP_SECONDS = histogram(
    "http_request_seconds", "Seconds from a request to its answer, including waits.", "route", buckets=(*FAST, 30, 60)
)
OPEN_STREAMS = gauge("open_streams", "Open event sockets, event streams and followed logs.")
STEP_FAILURES = counter("step_failures_total", "Runs of a controller's or watcher's step that failed.", "step")
BUDGET_USED = gauge("budget_used", "Use of a bounded resource.", "resource")
BUDGET_REFUSALS = counter(
    "budget_refusals_total",
    "Requests refused because a tenant or key had reached its limit.",
    "resource",
    "of",
)
REFUSALS = counter(
    "refusals_total",
    "Refusals of wrong keys and of keys over their rate: answered immediately, delayed, or closed because many"
    " were delayed.",
    "answered",
)
KEPT_ANSWERS_FORGOTTEN = counter(
    "kept_answers_forgotten_total",
    "Stored answers deleted before 24 hours to make room for newer ones of the same tenant or key.",
    "of",
)
TASKS = counter("tasks_total", "Tasks that a worker ended.", "task", "result")
TASK_SECONDS = histogram("task_seconds", "Seconds that a task took.", "task")
