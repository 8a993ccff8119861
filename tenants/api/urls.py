from django.urls import path

from tenants.api import views

urlpatterns = [
    path("tenants", views.TenantListView.as_view()),
    path("tenants/<str:tenant_id>/claim", views.ClaimView.as_view()),
    path("tenants/<str:tenant_id>/release", views.ReleaseView.as_view()),
    path("tenants/<str:tenant_id>/status", views.StatusView.as_view()),
    path("tenants/<str:tenant_id>/sync", views.SyncView.as_view()),
    path("tenants/<str:tenant_id>/heartbeat", views.HeartbeatView.as_view()),
    path("containers", views.ContainerListView.as_view()),
    path("containers/<str:container_id>", views.ContainerView.as_view()),
    path("containers/<str:container_id>/exec", views.ExecView.as_view()),
    path("pools/<str:pool_id>/containers", views.PoolContainerListView.as_view()),
]
