"""Forms are taken apart in memory, whatever is in them."""

from __future__ import annotations

import httpx
import pytest

from serve.edge import Refusal
from serve.forms import is_form, parts_of


def form(**files: tuple[str | None, bytes]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://test", files=files)
    return request.read(), request.headers["content-type"]


def test_parts_come_whole_and_in_order() -> None:
    photo = bytes(range(256)) * 300 + b"\r\n--boundary--\r\n"
    body, kind = form(photo=("ad\u00e4 1.jpg", photo), options=(None, b'{"k": 2}'))
    first, second = parts_of(body, kind)
    assert (first.name, first.filename, first.data) == ("photo", "ad\u00e4 1.jpg", photo)
    assert first.content_type == "image/jpeg"
    assert (second.name, second.filename, second.data) == ("options", None, b'{"k": 2}')


def test_the_same_name_may_come_again() -> None:
    request = httpx.Request("POST", "http://test", files=[("photo", ("a", b"1")), ("photo", ("b", b""))])
    parts = parts_of(request.read(), request.headers["content-type"])
    assert [(part.filename, part.data) for part in parts] == [("a", b"1"), ("b", b"")]
    with pytest.raises(Refusal, match="more than 1 parts"):
        parts_of(request.read(), request.headers["content-type"], max_parts=1)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 300]
)
def test_a_form_without_a_boundary_is_refused(kind: str) -> None:
    with pytest.raises(Refusal, match="boundary"):
        parts_of(b"", kind)


def test_a_form_that_is_none_or_not_whole_is_refused() -> None:
    body, kind = form(photo=("a", b"x" * 100))
    for wrong in (body[:-5], body[: len(body) // 2], b"", b"hello", b"x" + body):
        with pytest.raises(Refusal) as refused:
            parts_of(wrong, kind)
        assert refused.value.reason == "bad-request"


def test_what_is_a_form() -> None:
    assert is_form("Multipart/Form-Data; boundary=x")
    assert not is_form("image/jpeg") and not is_form(None)
