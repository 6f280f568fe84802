"""A first test of the desk: a ticket is for its customer, and for nobody else."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hubbub.testing import RequestRefused, endpoint_client

from .app import app


def test_a_ticket_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE", str(tmp_path / "desk.db"))
    with TestClient(app) as browser:
        browser.post("/api/session", json={"name": "Ann"})  # the cookie is kept, as in a browser
        ticket = browser.post("/api/tickets", json={"subject": "Help", "text": "My parcel is late"}).json()
        with endpoint_client(browser, "/live") as ann:
            ann.subscribe(f"ticket:{ticket['id']}")
            reply = ann.rpc("say", {"ticket_id": ticket["id"], "text": "Any news?"})
            assert reply["author"] == "ann"

        browser.post("/api/session", json={"name": "Bob"})
        with endpoint_client(browser, "/live") as bob, pytest.raises(RequestRefused) as refused:
            bob.subscribe(f"ticket:{ticket['id']}")
        assert refused.value.code == 103
