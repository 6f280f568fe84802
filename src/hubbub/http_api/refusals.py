"""The errors with which the HTTP API answers: the codes are those of Centrifugo."""

from __future__ import annotations

import logging
from typing import Any, Final

from ..errors import BrokerUnavailable, HubbubError, InvalidArgument, shown
from ..protocols.centrifugo.codes import ErrorCode
from . import models

logger: Final = logging.getLogger("hubbub")


class Refused(HubbubError):
    """A request is refused.

    Attributes:
        error: The error in the answer.
    """

    def __init__(self, code: ErrorCode, message: str = "") -> None:
        text = f"{code.message}: {message}" if message else code.message
        super().__init__(text)
        self.error: models.ApiError = models.ApiError(code=code.code, message=text)
        if code.temporary:
            self.error.temporary = True


def refused_by(error: InvalidArgument | BrokerUnavailable, method: str) -> Refused:
    """Returns the refusal of a request to a method that raised an error."""
    if isinstance(error, InvalidArgument):
        return Refused(ErrorCode.BAD_REQUEST, str(error))
    logger.warning("the HTTP API could not do %s: %s", shown(method), str(error))
    return Refused(ErrorCode.INTERNAL, str(error))


def refusal_of(errors: list[Any]) -> Refused:
    """Returns the refusal of a request that does not validate, from Pydantic's errors."""
    code = ErrorCode.BAD_REQUEST
    if any(each["type"] == models.NOT_SERVED for each in errors):
        code = ErrorCode.NOT_AVAILABLE
    elif any(each["type"] == "too_long" for each in errors):
        code = ErrorCode.LIMIT_EXCEEDED
    texts = []
    for each in errors[:10]:
        place = ".".join(str(part) for part in each["loc"] if part != "body")
        texts.append(f"{place}: {each['msg']}" if place else str(each["msg"]))
    return Refused(code, "; ".join(texts))
