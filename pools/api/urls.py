from django.urls import path

from pools.api import node_join_views as joins
from pools.api import node_views as nodes
from pools.api import registry_credential_views as registries
from pools.api import views

urlpatterns = [
    path("registry-credentials", registries.RegistryCredentialListView.as_view()),
    path("registry-credentials/<str:registry_credential_id>", registries.RegistryCredentialView.as_view()),
    path("nodes", nodes.NodeListView.as_view()),
    path("nodes/tokens", joins.NodeTokenListView.as_view()),
    path("nodes/tokens/<str:token_id>", joins.NodeTokenView.as_view()),
    path("nodes/join", joins.NodeJoinView.as_view()),
    path("nodes/<str:node_id>", nodes.NodeView.as_view()),
    path("nodes/<str:node_id>/cordon", nodes.NodeCordonView.as_view()),
    path("nodes/<str:node_id>/drain", nodes.NodeDrainView.as_view()),
    path("nodes/<str:node_id>/lost", nodes.NodeLostView.as_view()),
    path("nodes/<str:node_id>/uncordon", nodes.NodeUncordonView.as_view()),
    path("workloads", views.WorkloadListView.as_view()),
    path("workloads/<str:workload_id>", views.WorkloadView.as_view()),
    path("workloads/<str:workload_id>/refresh", views.WorkloadRefreshView.as_view()),
    path("workloads/<str:workload_id>/versions", views.WorkloadVersionListView.as_view()),
    path("pools", views.PoolListView.as_view()),
    path("pools/<str:pool_id>", views.PoolView.as_view()),
    path("pools/<str:pool_id>/scale", views.PoolScaleView.as_view()),
    path("pools/<str:pool_id>/pause", views.PoolPauseView.as_view()),
    path("pools/<str:pool_id>/resume", views.PoolResumeView.as_view()),
    path("pools/<str:pool_id>/drain", views.PoolDrainView.as_view()),
    path("pools/<str:pool_id>/usage", views.PoolUsageView.as_view()),
]
