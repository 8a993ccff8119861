"""What is counted of requests, streams and tasks."""

from __future__ import annotations

from boilerhouse.telemetry.metering import FAST, counter, gauge, histogram

HTTP_REQUESTS = counter("http_requests_total", "Requests answered.", "method", "route", "status")
HTTP_SECONDS = histogram(
    "http_request_seconds", "From a request to its answer, waiting included.", "route", buckets=(*FAST, 30, 60)
)
OPEN_STREAMS = gauge("open_streams", "Open event sockets, event streams and followed logs.")
STEP_FAILURES = counter("step_failures_total", "Turns of controllers' and watchers' steps that failed.", "step")
BUDGET_USED = gauge("budget_used", "How much of a bounded resource is in use.", "resource")
BUDGET_REFUSALS = counter(
    "budget_refusals_total",
    "Requests refused because somebody uses as much as one may.",
    "resource",
    "of",
)
REFUSALS = counter(
    "refusals_total",
    "Refusals of keys that ask too much, and of wrong ones: answered at once, late, or closed because many were late.",
    "answered",
)
KEPT_ANSWERS_FORGOTTEN = counter(
    "kept_answers_forgotten_total", "Kept answers forgotten before their day, for newer ones of the same share.", "of"
)
TASKS = counter("tasks_total", "Tasks that ended on a worker.", "task", "result")
TASK_SECONDS = histogram("task_seconds", "How long a task took.", "task")
