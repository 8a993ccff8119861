from django.urls import path

from pools.api import views

urlpatterns = [
    path("workloads", views.WorkloadListView.as_view()),
    path("workloads/<str:workload_id>", views.WorkloadView.as_view()),
    path("pools", views.PoolListView.as_view()),
    path("pools/<str:pool_id>", views.PoolView.as_view()),
    path("pools/<str:pool_id>/scale", views.PoolScaleView.as_view()),
]
