from django.contrib.auth import views as auth
from django.urls import path

from boilerhouse.dashboard import views

urlpatterns = [
    path("", views.overview, name="overview"),
    path("theme", views.set_theme, name="set-theme"),
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("login/<uid>/<token>/", views.one_time_login, name="one-time-login"),
]
