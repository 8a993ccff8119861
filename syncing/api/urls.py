from django.urls import path

from syncing.api import credentials, views

urlpatterns = [
    path("credentials", credentials.CredentialListView.as_view()),
    path("credentials/<str:credential_id>", credentials.CredentialView.as_view()),
    path("sync-specs", views.SyncSpecListView.as_view()),
    path("sync-specs/<str:spec_id>", views.SyncSpecView.as_view()),
    path("sync-specs/<str:spec_id>/probes", views.SinkProbeListView.as_view()),
    path("sync-runs", views.SyncRunListView.as_view()),
]
