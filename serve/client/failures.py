"""A refusal of the service, as an exception."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from serve.schemas import ErrorBody


class ApiError(Exception):
    """The service did not answer what was asked.

    status: of HTTP. reason: one word of a fixed list, for programs; empty if what answered was not the service.
    message: a sentence. retry_after: seconds that the service wants waited, None: it does not say.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


def error_of(response: httpx.Response) -> ApiError:
    """Args: response: read, and no success."""
    try:
        told = ErrorBody.model_validate_json(response.content).error
        reason, message = told.reason, told.message
    except ValidationError:  # a proxy in front says something of its own
        reason, message = "", response.text[:200]
    return ApiError(response.status_code, reason, message, retry_after_of(response))


def retry_after_of(response: httpx.Response) -> float | None:
    """Seconds; a date, which this service never sends, counts as nothing said."""
    text = response.headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdecimal() else None
