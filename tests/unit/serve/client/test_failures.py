"""A refusal of the service, as an exception."""

import httpx

from serve.client.failures import error_of


def test_what_the_service_says_is_told() -> None:
    body = {"error": {"reason": "busy", "message": "All places are taken."}}
    error = error_of(httpx.Response(503, json=body, headers={"retry-after": "2"}))
    assert (error.status, error.reason, error.message) == (503, "busy", "All places are taken.")
    assert error.retry_after == 2.0
    assert "503 busy: All places are taken." in str(error)


def test_what_a_proxy_says_is_shown() -> None:
    error = error_of(httpx.Response(502, text="<html>Bad gateway" + "x" * 500))
    assert (error.status, error.reason, error.retry_after) == (502, "", None)
    assert error.message.startswith("<html>Bad gateway")
    assert len(error.message) == 200
