from django.urls import path

from boilerhouse.dashboard.consumers import PageConsumer

websocket_urlpatterns = [path("ws/pages/overview", PageConsumer.as_asgi())]
