"""OpenTelemetry traces if ``BOILERHOUSE_TRACING`` is set; otherwise these functions do nothing.

A request is one trace. The web process starts it (or continues the caller's ``traceparent``), and messages to workers
carry it, so a claim prepared by a worker appears as a whole. The standard ``OTEL_…`` variables set where spans are
sent. Ids of tenants and containers are attributes; config and secrets never are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings


@functools.cache
def _tracer() -> Any:
    """The tracer, set up on first use: in the process that uses it, after every fork."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "boilerhouse"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    return provider.get_tracer("boilerhouse", settings.VERSION)


@contextmanager
def span(name: str, carrier: Mapping[str, str] | None = None, **attributes: Any) -> Iterator[None]:
    """A span around the block, below the current span or, with ``carrier``, below the span that it carries."""
    if not settings.BOILERHOUSE_TRACING:
        yield
        return
    from opentelemetry.trace import StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(dict(carrier)) if carrier else None
    about = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in attributes.items()}
    # An exception's text may quote a tenant's data; the class name is enough.
    options = {"attributes": about, "record_exception": False, "set_status_on_exception": False}
    with _tracer().start_as_current_span(name, context, **options) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", getattr(error, "code", type(error).__name__))
            current.set_status(StatusCode.ERROR)
            raise


def note(**attributes: Any) -> None:
    """Add attributes to the current span."""
    if settings.BOILERHOUSE_TRACING:
        from opentelemetry import trace

        trace.get_current_span().set_attributes({key: str(value) for key, value in attributes.items()})


def carrier() -> dict[str, str]:
    """What a message carries to join its span to the current trace; empty without one."""
    if not settings.BOILERHOUSE_TRACING:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers
