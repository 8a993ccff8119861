from django.urls import path

from tenants.api import command_views as views

TENANT, CONTAINER = "tenants/<str:tenant_id>/commands", "containers/<str:container_id>/commands"
ONE = "/<str:command_id>"

urlpatterns = [
    path(TENANT, views.TenantCommandsView.as_view()),
    path(TENANT + ONE, views.TenantCommandView.as_view()),
    path(f"{TENANT}{ONE}/output", views.TenantCommandOutputView.as_view()),
    path(f"{TENANT}{ONE}/stdin", views.TenantStdinView.as_view()),
    path(f"{TENANT}{ONE}/signal", views.TenantSignalView.as_view()),
    path(f"{TENANT}{ONE}/resize", views.TenantResizeView.as_view()),
    path(CONTAINER, views.CommandsView.as_view()),
    path(CONTAINER + ONE, views.CommandView.as_view()),
    path(f"{CONTAINER}{ONE}/output", views.CommandOutputView.as_view()),
    path(f"{CONTAINER}{ONE}/stdin", views.StdinView.as_view()),
    path(f"{CONTAINER}{ONE}/signal", views.SignalView.as_view()),
    path(f"{CONTAINER}{ONE}/resize", views.ResizeView.as_view()),
]
