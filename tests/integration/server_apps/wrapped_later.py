"""The chat with a wrapping middleware that is added after the manager was installed."""

from tests.integration.server_apps.chat import app
from tests.integration.server_apps.wrapping import Wrapping

app.add_middleware(Wrapping)
