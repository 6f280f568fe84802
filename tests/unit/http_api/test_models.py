from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hubbub.http_api import models
from hubbub.http_api.catalog import METHODS
from hubbub.http_api.methods import Methods
from hubbub.http_api.refusals import refusal_of


def errors_of(model: type[models.Request], fields: Any) -> list[Any]:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(fields)
    return raised.value.errors(include_url=False, include_context=False)


def test_a_request_is_of_exact_types() -> None:
    for fields in (
        {"channel": "a", "data": 1, "skip_history": 1},
        {"channel": b"a", "data": 1},
        {"channel": "a", "data": 1, "b64data": 5},
    ):
        assert errors_of(models.ApiPublishRequest, fields)
    for limit in ("5", 5.5, True, -2, 2**31):
        assert errors_of(models.ApiHistoryRequest, {"channel": "a", "limit": limit})
    assert errors_of(models.ApiRefreshRequest, {"user": "ann", "expire_at": -1})
    assert errors_of(models.ApiHistoryRequest, {"channel": "a", "since": {"offset": -1}})
    assert errors_of(models.ApiHistoryRequest, {"channel": "a", "since": {"offset": 1, "at": 2}})


def test_null_is_a_message_and_nothing_is_none() -> None:
    assert models.ApiPublishRequest.model_validate({"channel": "a", "data": None}).data is None
    assert "data is required" in str(errors_of(models.ApiPublishRequest, {"channel": "a"}))
    sent = models.ApiPublishRequest.model_validate({"channel": "a", "b64data": "AAE=", "data": None})
    assert sent.b64data == "AAE="
    assert errors_of(models.ApiPublishRequest, {"channel": "a", "b64data": "AAE=", "data": 0})
    assert errors_of(models.ApiPublishRequest, {"channel": "a", "b64data": "AAE"})


MODELS = {name: method.request for name, method in METHODS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_field_that_is_not_served_is_refused_if_it_has_an_effect(name: str) -> None:
    model = MODELS[name]
    fields: dict[str, Any] = {
        "channel": "a",
        "channels": ["a"],
        "user": "ann",
        "data": 1,
        "commands": [],
        "expired": True,
    }
    fields = {field: value for field, value in fields.items() if field in model.model_fields}
    model.model_validate(fields)
    for field in model.not_served:
        refused = refusal_of(errors_of(model, {**fields, field: "x"}))
        assert refused.error.code == 108
        assert field in refused.error.message
        nothing: list[Any] = [None, "", 0, False, {}, []]
        for without_effect in nothing:
            model.model_validate({**fields, field: without_effect})
    assert refusal_of(errors_of(model, {**fields, "unknown": None})).error.code == 107


def test_the_reason_for_a_refusal_is_bounded() -> None:
    channels = [""] * models.MAX_CHANNELS
    refused = refusal_of(errors_of(models.ApiBroadcastRequest, {"channels": channels, "data": 1}))
    assert len(refused.error.message) < 1000


def test_every_model_has_a_name_of_its_own_in_the_documents_of_apps() -> None:
    for method in METHODS.values():
        for model in (method.request, method.answer):
            names = {model.__name__, *model.model_json_schema().get("$defs", {})}
            assert not [name for name in names if not name.startswith("Api")]


def test_every_method_of_the_catalog_is_done() -> None:
    assert not [name for name in METHODS if not callable(getattr(Methods, name, None))]
