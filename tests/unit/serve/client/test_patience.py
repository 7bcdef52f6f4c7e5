"""When a request is sent again."""

import httpx
import pytest

from serve.client.patience import Patience, Waits


def _answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def waits(again: bool = True, **settings: float) -> Waits:
    return Waits(Patience(**settings), again, lambda: 0.5)  # type: ignore[arg-type]


def test_it_waits_as_long_as_it_is_told() -> None:
    of = waits(retries=3, longest_s=10)
    assert of.after(_answer(503, retry_after="4")) == 4
    assert of.after(_answer(429, retry_after="6")) == 6
    assert of.after(_answer(503, retry_after="1")) is None, "10 s are over"


def test_who_is_told_to_wait_too_long_gives_up_at_once() -> None:
    assert waits(longest_s=10).after(_answer(429, retry_after="11")) is None


def test_told_nothing_it_waits_twice_as_long_each_time() -> None:
    of = waits(retries=4)
    assert [of.after(_answer(503)) for _ in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.6, None])
    assert Waits(Patience(), True, lambda: 0.0).after(_answer(503)) == pytest.approx(0.1)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 422, 500, 504])
def test_other_answers_are_answers(status: int) -> None:
    assert waits().after(_answer(status)) is None


def test_no_retries_at_all() -> None:
    assert waits(retries=0).after(_answer(503, retry_after="0")) is None


def test_what_may_have_been_done_is_done_again_only_if_that_is_the_same() -> None:
    lost, never_sent = httpx.ReadError("gone"), httpx.ConnectError("no")
    assert waits(again=True).after_failure(lost) is not None
    assert waits(again=False).after_failure(lost) is None
    assert waits(again=False).after_failure(never_sent) is not None


def test_a_date_counts_as_nothing_said() -> None:
    assert waits().after(_answer(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")) == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [{"retries": -1}, {"longest_s": -1}, {"longest_s": float("nan")}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        Patience(**bad)  # type: ignore[arg-type]
