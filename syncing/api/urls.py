from django.urls import path

from syncing.api import credential_views, views

urlpatterns = [
    path("credentials", credential_views.CredentialListView.as_view()),
    path("credentials/<str:credential_id>", credential_views.CredentialView.as_view()),
    path("sync-specs", views.SyncSpecListView.as_view()),
    path("sync-specs/<str:spec_id>", views.SyncSpecView.as_view()),
    path("sync-specs/<str:spec_id>/probes", views.SinkProbeListView.as_view()),
    path("sync-runs", views.SyncRunListView.as_view()),
]
