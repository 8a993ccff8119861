from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "boilerhouse.notifications"
    label = "notifications"
