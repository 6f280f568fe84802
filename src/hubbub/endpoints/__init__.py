"""Functions that answer clients: what an app declares, ready to be called once per message."""
