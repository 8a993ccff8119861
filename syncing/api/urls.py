from django.urls import path

from syncing.api import views

urlpatterns = [
    path("sync-specs", views.SyncSpecListView.as_view()),
    path("sync-specs/<str:spec_id>", views.SyncSpecView.as_view()),
    path("sync-runs", views.SyncRunListView.as_view()),
]
