"""Every URL of the product."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from drf_spectacular.views import SpectacularAPIView

from boilerhouse.core.api import problems
from boilerhouse.core.api.views import EventListView
from boilerhouse.dashboard import health, metrics, views

api: list[URLPattern | URLResolver] = [
    path("", include("pools.api.urls")),
    path("", include("syncing.api.urls")),
    path("", include("tenants.api.urls")),
    path("events", EventListView.as_view()),
    path("health", health.HealthView.as_view()),
    path("health/ready", health.ReadyView.as_view()),
    path("metrics", metrics.MetricsView.as_view()),
    path("openapi.json", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"", problems.not_found),
]

urlpatterns = [
    path("api/v1/", include(api)),
    path("admin/", admin.site.urls),
    path("", include("boilerhouse.dashboard.urls")),
    re_path(r"^api/", problems.not_found),
    path("health", views.health_alias),
]

handler404 = "boilerhouse.core.api.problems.not_found"
handler500 = "boilerhouse.core.api.problems.server_error"
