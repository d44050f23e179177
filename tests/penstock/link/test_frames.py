"""Frames, however their bytes are cut."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import MalformedRequest
from penstock.link import frames
from penstock.link.frames import FrameReader, call_frame, frame, number_payload, read_call, read_number

FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=200)), max_size=20)


@given(FRAMES, st.data())
def test_frames_are_read_as_they_were_written_wherever_the_bytes_are_cut(
    sent: list[tuple[int, int, bytes]], data: st.DataObject
):
    written = b"".join(frame(*each) for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=10)))
    reader, read = FrameReader(1000), []
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        read += reader.feed(written[start:end])
    assert read == sent


def test_a_frame_that_is_too_long_is_refused_before_it_has_come():
    with pytest.raises(MalformedRequest, match="at most 1000"):
        list(FrameReader(1000).feed(frame(1, frames.MESSAGE, b"x" * 1001)[:9]))


def test_a_call_says_its_method_its_time_its_metadata_and_its_message():
    (number, kind, payload), *_ = FrameReader(1000).feed(call_frame(7, "/a.B/C", 2.5, {"x": "y"}, b"message"))
    assert (number, kind) == (7, frames.CALL)
    assert read_call(payload) == ("/a.B/C", 2.5, {"x": "y"}, b"message")


@given(st.binary(max_size=64))
def test_any_bytes_are_a_call_or_malformed(payload: bytes):
    with suppress(MalformedRequest):
        read_call(payload)


@pytest.mark.parametrize(
    "head", [b'["/a",1]', b'["/a","1",{}]', b"[1,1,{}]", b'["/a",1,{"x":1}]', b'["/a",1,[]]', b"\xff", b"{}"]
)
def test_a_head_of_another_shape_is_malformed(head: bytes):
    with pytest.raises(MalformedRequest):
        read_call(number_payload(len(head)) + head)


def test_numbers_are_four_bytes():
    assert read_number(number_payload(32)) == 32
    with pytest.raises(MalformedRequest):
        read_number(b"123")
