"""Settings of the web process that shows demo data: its engine has the logs of containers that do not exist."""

from boilerhouse.settings import *  # noqa: F403

BOILERHOUSE_RUNTIME = {"BACKEND": "boilerhouse.operations.demo_data.engine.DemoEngine", "OPTIONS": {}}
