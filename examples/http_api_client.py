"""Publishes from another program, with the official client of Centrifugo's server API."""

import os

from cent import CentApiResponseError, Client, HistoryRequest, PublishRequest


def main() -> None:
    client = Client("http://localhost:8000/api", api_key=os.environ["API_KEY"])
    request = PublishRequest(channel="news:sport", data={"text": "Goal!"}, idempotency_key="match-7-goal-1")
    position = client.publish(request)
    assert client.publish(request) == position  # a retry publishes nothing
    page = client.history(HistoryRequest(channel="news:sport", limit=10))
    print([publication.data["text"] for publication in page.publications])
    try:
        client.publish(PublishRequest(channel="", data={}))
    except CentApiResponseError as error:
        print(error.code, error.message)  # 107 bad request: channel: String should have at least 1 character


if __name__ == "__main__":
    main()
