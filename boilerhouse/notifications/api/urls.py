from django.urls import path

from boilerhouse.notifications.api import views

urlpatterns = [
    path("notifications", views.NotificationListView.as_view()),
    path("notifications/<str:notification_id>", views.NotificationView.as_view()),
    path("notifications/<str:notification_id>/test", views.NotificationTestView.as_view()),
    path("notifications/<str:notification_id>/deliveries", views.DeliveryListView.as_view()),
    path("notifications/<str:notification_id>/deliveries/<str:delivery_id>/resend", views.ResendView.as_view()),
]
