from django.urls import path

from tenants.api import backup_views, container_views, erasure_views, network_views, sync_views, usage_views, views

urlpatterns = [
    path("tenants", views.TenantListView.as_view()),
    path("tenants/<str:tenant_id>/claim", views.ClaimView.as_view()),
    path("tenants/<str:tenant_id>/release", views.ReleaseView.as_view()),
    path("tenants/<str:tenant_id>/status", views.StatusView.as_view()),
    path("tenants/<str:tenant_id>/sync", views.SyncView.as_view()),
    path("tenants/<str:tenant_id>/heartbeat", views.HeartbeatView.as_view()),
    path("tenants/<str:tenant_id>/network", network_views.NetworkView.as_view()),
    path("tenants/<str:tenant_id>/exec", container_views.TenantExecView.as_view()),
    path("tenants/<str:tenant_id>/logs", container_views.TenantLogsView.as_view()),
    path("tenants/<str:tenant_id>/state", erasure_views.StateView.as_view()),
    path("tenants/<str:tenant_id>/forget-state", erasure_views.ForgetStateView.as_view()),
    path("tenants/<str:tenant_id>/runs", sync_views.TenantRunListView.as_view()),
    path("tenants/<str:tenant_id>/backups", backup_views.BackupListView.as_view()),
    path("tenants/<str:tenant_id>/backups/<str:backup_id>/restore", backup_views.BackupRestoreView.as_view()),
    path("sync-specs/<str:spec_id>/trigger", sync_views.SpecTriggerView.as_view()),
    path("sync-specs/<str:spec_id>/probe", sync_views.SpecProbeView.as_view()),
    path("sync-specs/<str:spec_id>/status", sync_views.SpecStatusView.as_view()),
    path("sync-runs/<str:run_id>", sync_views.SyncRunView.as_view()),
    path("sync-runs/<str:run_id>/cancel", sync_views.SyncRunCancelView.as_view()),
    path("containers", container_views.ContainerListView.as_view()),
    path("containers/<str:container_id>", container_views.ContainerView.as_view()),
    path("containers/<str:container_id>/exec", container_views.ExecView.as_view()),
    path("containers/<str:container_id>/logs", container_views.LogsView.as_view()),
    path("usage", usage_views.UsageView.as_view()),
    path("pools/<str:pool_id>/containers", container_views.PoolContainerListView.as_view()),
]
