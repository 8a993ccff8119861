"""JupyterLab runs before it knows its tenant, so that a claim finds it ready: the token is the claim's secret TOKEN.

Until there is a claim the token is a random one that nobody knows.
"""

from pathlib import Path

from jupyter_server.auth.identity import PasswordIdentityProvider

TOKEN = Path("/run/secrets/TOKEN")
CLAIM = Path("/run/secrets/claim.json")


class ClaimToken(PasswordIdentityProvider):
    async def get_user_token(self, handler):
        if CLAIM.exists() and TOKEN.exists():
            self.token = TOKEN.read_text()
        return await super().get_user_token(handler)


c = get_config()  # noqa: F821  Jupyter puts it there
c.ServerApp.identity_provider_class = ClaimToken
c.ServerApp.ip = "0.0.0.0"  # noqa: S104  the container's own address; nothing else listens there
c.ServerApp.port = 8888
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/state"
c.ServerApp.preferred_dir = "/state"
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}
c.LabApp.extension_manager = "readonly"  # the image's root is read-only: packages belong into the image
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
c.LabApp.news_url = None
c.LanguageServerManager.autodetect = False  # the image has none; looking costs the start a second
