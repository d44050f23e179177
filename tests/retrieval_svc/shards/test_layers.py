import numpy as np

from retrieval_svc.filters import OneOf
from retrieval_svc.shards.head import Head
from retrieval_svc.shards.layers import Layer
from retrieval_svc.shards.removals import Removals
from retrieval_svc.shards.selection import RecentlyUsed, Selection
from retrieval_svc.values import EVERYTHING, Visibility
from tests.retrieval_svc.shards.rows import CODEC, added, clustered, spec_of


class Weight:
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


def layer_of(count: int) -> Layer:
    head = Head(spec_of(), CODEC, after=0)
    layer = Layer(head, CODEC)
    rows = added(0, clustered(count), metadata=['{"k": "v"}'] * count).stored
    head.append(rows.sequences, rows.vectors, rows.chunks)
    return layer


def test_what_was_not_used_for_longest_goes_first_when_the_bytes_are_spent() -> None:
    kept: RecentlyUsed[Weight] = RecentlyUsed(100)
    for key in "abc":
        kept.put(key, Weight(30))
    assert kept.get("a") is not None
    kept.put("d", Weight(30))
    assert [key for key in "abcd" if kept.get(key) is not None] == ["a", "c", "d"]
    kept.put("d", Weight(90))
    assert (len(kept), kept.get("d") is not None) == (1, True)


def test_the_forms_of_a_selection_agree() -> None:
    mask = np.random.default_rng(0).random(1003) < 0.3
    selection = Selection(mask)
    assert selection.count == mask.sum()
    assert np.array_equal(selection.rows, np.flatnonzero(mask))
    assert np.array_equal(np.unpackbits(selection.bits, bitorder="little")[:1003].astype(bool), mask)


def test_a_selection_is_kept_until_the_layer_changes() -> None:
    layer = layer_of(10)
    condition = OneOf(field="k", values=("v",))
    first, _ = layer.selection(condition, EVERYTHING)
    assert layer.selection(condition, EVERYTHING)[0] is first
    layer.remove(np.array([3, 99]))
    second, _ = layer.selection(condition, EVERYTHING)
    assert second is not None
    assert second.rows.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    rows = added(10, clustered(1), metadata=['{"k": "v"}']).stored
    layer.source.append(rows.sequences, rows.vectors, rows.chunks)  # type: ignore[attr-defined]
    third, _ = layer.selection(condition, EVERYTHING)
    assert third is not None
    assert third.count == 10


def test_without_access_lists_every_row_may_be_seen_and_nothing_is_selected() -> None:
    layer = layer_of(10)
    assert layer.all_may_be_seen(Visibility())
    assert layer.selection(None, Visibility(principals=frozenset({"user:ann"}))) == (None, ())


def test_rows_are_found_by_number_gone_or_not() -> None:
    layer = layer_of(10)
    layer.remove(np.array([4]))
    layer.remove(np.array([4, 0, 11]))
    assert (layer.gone_count, layer.row_count, layer.gone_sequences().tolist()) == (1, 9, [4])
    asked = np.array([11, 4, 1, 0])
    assert layer.find(asked)[0].tolist() == [3, 0]
    rows, present = layer.find_present(asked)
    assert (rows.tolist(), present.tolist()) == ([0], [False, False, True, False])


def test_removals_are_told_apart_by_the_position_that_made_them() -> None:
    removals = Removals()
    for position in range(1, 1001):
        removals.add(np.array([5000 + position]), np.array([position]))
    assert removals.after(997).tolist() == [5998, 5999, 6000]
    removals.forget(998)
    assert removals.after(0).tolist() == [5999, 6000]
    assert removals.after(1000).tolist() == []
