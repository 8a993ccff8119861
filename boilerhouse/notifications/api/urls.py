from django.urls import path

from boilerhouse.notifications.api import cause_views, views

urlpatterns = [
    path("causes", cause_views.CauseListView.as_view()),
    path("causes/<str:cause_id>/mute", cause_views.CauseMuteView.as_view()),
    path("notifications", views.NotificationListView.as_view()),
    path("notifications/<str:notification_id>", views.NotificationView.as_view()),
    path("notifications/<str:notification_id>/test", views.NotificationTestView.as_view()),
    path("notifications/<str:notification_id>/deliveries", views.DeliveryListView.as_view()),
    path("notifications/<str:notification_id>/deliveries/<str:delivery_id>/resend", views.ResendView.as_view()),
]
