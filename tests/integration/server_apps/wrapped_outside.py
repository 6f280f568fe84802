"""The chat with a wrapper around the whole app, out of the manager's reach."""

from tests.integration.server_apps.chat import app as chat
from tests.integration.server_apps.wrapping import Wrapping

app = Wrapping(chat)
