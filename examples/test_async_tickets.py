import anyio.to_thread
import pytest
from fastapi.testclient import TestClient

from examples.test_tickets import Close, Closed, app
from hubbub.testing import endpoint_client


def ann_closes_her_ticket() -> Closed:
    with TestClient(app) as client, endpoint_client(client, "/live", user="ann") as ann:
        return ann.rpc("ticket.close", Close(id=1), returns=Closed)


@pytest.mark.anyio
async def test_ann_closes_her_ticket() -> None:
    assert await anyio.to_thread.run_sync(ann_closes_her_ticket) == Closed(id=1, by="ann")
