"""All URLs."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path

from boilerhouse.api import openapi
from boilerhouse.api.audit_views import AuditListView
from boilerhouse.api.event_views import EventListView, EventStreamView
from boilerhouse.api.key_views import ApiKeyListView, ApiKeyView, KeyRotationView
from boilerhouse.api.settings_views import SettingsView
from boilerhouse.dashboard import views
from boilerhouse.operations import health, metrics, stats
from boilerhouse.web import problems
from tenants.api import order_views

api: list[URLPattern | URLResolver] = [
    path("", include("pools.api.urls")),
    path("", include("syncing.api.urls")),
    path("", include("tenants.api.urls")),
    path("", include("boilerhouse.notifications.api.urls")),
    path("events", EventListView.as_view()),
    path("events/stream", EventStreamView.as_view()),
    path("api-keys", ApiKeyListView.as_view()),
    path("api-keys/<str:key_id>", ApiKeyView.as_view()),
    path("api-keys/<str:key_id>/rotate", KeyRotationView.as_view()),
    path("audit", AuditListView.as_view()),
    path("settings", SettingsView.as_view()),
    path("stats", stats.StatsView.as_view()),
    path("health", health.HealthView.as_view()),
    path("health/ready", health.ReadyView.as_view()),
    path("metrics", metrics.MetricsView.as_view()),
    path("openapi.json", openapi.SchemaView.as_view(), name="schema"),
    path("docs", openapi.docs, name="api-docs"),
    re_path(r"", problems.nowhere),
]

urlpatterns = [
    path("api/v1/", include(api)),
    path("node/v1/claims/<uuid:assignment_id>", order_views.take_claim),
    path("node/v1/containers/<uuid:container_id>/command", order_views.run_first_command),
    path("admin/login/", views.admin_login),
    path("admin/", admin.site.urls),
    path("", include("boilerhouse.dashboard.urls")),
    re_path(r"^api/", problems.nowhere),
    path("health", views.health_alias),
    path("metrics", metrics.MetricsView.as_view(schema=None)),  # the usual path for scrapers
]

handler400 = "boilerhouse.web.problems.bad_request"
handler404 = "boilerhouse.web.problems.not_found"
handler500 = "boilerhouse.web.problems.server_error"
