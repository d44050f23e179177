import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc.sse import EVENT_BYTES_MAX, SseParser
from penstock.errors import BackendUnavailable


def parsed(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_comments_names_and_ids_are_passed_over() -> None:
    assert parsed(b": ping\n\nevent: x\nid: 3\nretry: 10\ndata: {}\n\n: ping\n\n") == [b"{}"]


def test_several_data_lines_are_one_event() -> None:
    assert parsed(b"data: a\ndata: b\n\ndata:c\n\n") == [b"a\nb", b"c"]


def test_an_event_that_is_not_ended_is_not_given() -> None:
    assert parsed(b"data: a\n\ndata: b\n") == [b"a"]


@given(
    events=st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"")), max_size=6),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_events_are_the_same_however_the_bytes_are_cut(events: list[bytes], line_end: bytes, sizes: list[int]) -> None:
    whole = b"".join(b"data: " + event + line_end + b": ping" + line_end + line_end for event in events) + b": end\n"
    chunks, start = [], 0
    while start < len(whole):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(whole[start : start + size])
        start += size
    assert parsed(*chunks) == events


def test_an_event_without_end_is_not_gathered_without_bound() -> None:
    with pytest.raises(BackendUnavailable, match="more than"):
        parsed(b"data: " + b"x" * EVENT_BYTES_MAX, b"x")
