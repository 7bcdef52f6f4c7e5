"""What is encoded is decoded; what was not is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.live.log.coding import Group, decode, encode, size_of
from retrieval.live.log.operations import Operation
from retrieval.live.rows import values_of
from tests.support.gallery import new_image

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False, width=32)
VALUES = st.recursive(
    PLAIN.filter(lambda one: one not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: name != "base64"), inner),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.builds(Operation, st.text(), st.dictionaries(st.text(min_size=7), VALUES, max_size=3)), max_size=3),
    st.text(),
)
def test_round_trip(operations: list[Operation], token: str) -> None:
    group = Group(token, operations)
    assert decode(encode(group)) == group


def test_what_an_image_is_made_of_is_the_same_behind_it() -> None:
    told = {"images": [values_of(new_image("p", 1, attributes={"hat": 1}, box=[1, 2, 3, 4]))], "original": b"\xff\x00"}
    assert decode(encode(Group("t", [Operation("add", told)]))).operations[0].told == told


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format": 1, "token": "t", "operations": [{}]}', b"\xff"])
def test_what_is_no_group_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        decode(data)


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2, expected 1"):
        decode(encode(Group("t", [])).replace(b'"format": 1', b'"format": 2'))


def test_what_is_nothing_a_change_is_made_of_is_not_written() -> None:
    with pytest.raises(TypeError, match="set is nothing"):
        encode(Group("t", [Operation("add", {"ids": {1}})]))


def test_the_size_is_about_that_of_the_object() -> None:
    operation = Operation("add", {"images": [{"jpeg": bytes(30_000)}], "original": bytes(9_000), "ids": ("a",)})
    assert size_of([operation]) == pytest.approx(len(encode(Group("t", [operation]))), rel=0.02)
