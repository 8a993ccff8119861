"""Makes ours the admin site at which all models register."""

from django.contrib.admin.apps import AdminConfig


class SiteConfig(AdminConfig):
    default_site = "boilerhouse.dashboard.admin_site.Site"
