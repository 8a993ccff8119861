from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "boilerhouse.dashboard"
    label = "dashboard"
