"""One shard against an exact reference: any writes, seals, compactions, adoptions and restarts in between."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retrieval_svc.filters import OneOf, Range
from retrieval_svc.shards.checkpoint import newest, open_segments, publish, sweep
from retrieval_svc.shards.compaction import read_result, run, write_plan
from retrieval_svc.shards.head import FrozenHead
from retrieval_svc.shards.segment_writer import RowBlock, write_rows, write_segment
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import EVERYTHING, Changes, IndexKind, Metric, UnmetCondition, Visibility
from tests.retrieval_svc.shards.rows import (
    CODEC,
    DIMENSION,
    added,
    clustered,
    exact_scores,
    nothing,
    open_shard,
    query,
    recall,
    removed,
    spec_of,
    stored,
)


def seal(shard: ShardIndex, folder: Path) -> None:
    frozen = shard.freeze_head()
    entries = [] if frozen is None else [write_segment(frozen, folder)]
    checkpoint(shard, folder, entries)


def checkpoint(shard: ShardIndex, folder: Path, entries: list, replaced: tuple[str, ...] = ()) -> None:
    manifest = publish(folder, shard.next_manifest(added=entries, replaced=replaced))
    shard.adopt(manifest, open_segments(folder, manifest))


def compact(shard: ShardIndex, folder: Path, *, force: bool = True) -> bool:
    plan = shard.plan_compaction(force=force)
    if plan is None:
        return False
    checkpoint(shard, folder, [run(plan)], plan.inputs)
    return True


def found(shard: ShardIndex, vector: np.ndarray, limit: int = 10, **more: object) -> list[int]:
    [(ranked, _)] = shard.search([query(vector, limit, **more)])
    return ranked.sequences.tolist()


def test_an_empty_shard_finds_nothing(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    assert found(shard, np.ones(DIMENSION)) == []
    assert shard.match(None, EVERYTHING).sequences.tolist() == []
    assert shard.fetch(np.array([1, 2])).chunks == ()
    assert (shard.position, shard.row_count, shard.freeze_head(), shard.plan_compaction(force=True)) == (0, 0, None, None)


def test_a_limit_beyond_the_rows_gives_all_of_them_from_all_layers(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, spec_of(Metric.COSINE))
    vectors = clustered(30)
    shard.apply(added(0, vectors[:10]))
    seal(shard, tmp_path)
    shard.apply(added(10, vectors[10:20]))
    shard.freeze_head()
    shard.apply(added(20, vectors[20:]))
    expected = exact_scores(vectors, vectors[3], Metric.COSINE)
    assert found(shard, vectors[3], 1000) == (np.argsort(-expected, kind="stable") + 1).tolist()
    assert found(shard, vectors[3], 1) == [4]


def test_rows_of_equal_score_come_in_the_order_of_their_sequence_numbers(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    for after in range(0, 30, 10):
        shard.apply(added(after, np.ones((10, DIMENSION))))
        seal(shard, tmp_path)
    shard.apply(added(30, np.ones((10, DIMENSION))))
    assert found(shard, np.ones(DIMENSION), 35) == list(range(1, 36))


@pytest.mark.parametrize("metric", list(Metric))
def test_sequence_numbers_of_64_bits_and_vectors_as_given_survive_a_restart(tmp_path: Path, metric: Metric) -> None:
    base = 2**62
    shard = open_shard(tmp_path, spec_of(metric))
    vectors = clustered(5)
    shard.apply(nothing(0, base))
    shard.apply(added(base, vectors))
    seal(shard, tmp_path)
    again = open_shard(tmp_path, spec_of(metric))
    fetched = again.fetch(np.array([base + 4, 7, base + 1]), with_vectors=True)
    assert fetched.sequences.tolist() == [base + 4, base + 1]
    assert fetched.vectors is not None
    np.testing.assert_allclose(fetched.vectors, vectors[[3, 0]], rtol=3e-7)
    assert [CODEC.decode(chunk).id for chunk in fetched.chunks] == [f"chunk-{base + 4}", f"chunk-{base + 1}"]


def test_hits_come_with_their_own_chunks_from_every_layer(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    vectors = clustered(40)
    shard.apply(added(0, vectors[:20]))
    seal(shard, tmp_path)
    shard.apply(added(20, vectors[20:]))
    for ranked, _ in shard.search([query(vector, 15, with_chunks=True) for vector in vectors[:7]]):
        assert [CODEC.decode(chunk).sequence for chunk in ranked.chunks] == ranked.sequences.tolist()


def test_queries_of_different_kinds_in_one_call_are_each_answered_as_alone(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    vectors = clustered(50)
    shard.apply(added(0, vectors, metadata=[orjson.dumps({"n": at}).decode() for at in range(50)]))
    low = Range(field="n", lt=20.0)
    queries = [
        query(vectors[0], 3),
        query(vectors[1], 5, filter=low),
        query(vectors[2], 3),
        query(vectors[3], 5, filter=low),
        query(vectors[4], 0),
    ]
    together = [ranked.sequences.tolist() for ranked, _ in shard.search(queries)]
    assert together == [shard.search([one])[0][0].sequences.tolist() for one in queries]
    assert [len(one) for one in together] == [3, 5, 3, 5, 0]


def test_changes_that_the_shard_has_already_are_left_out_and_a_gap_is_refused(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    vectors = clustered(20)
    shard.apply(added(0, vectors[:10]))
    shard.apply(added(0, vectors[:10]))
    shard.apply(added(0, vectors))
    assert shard.row_count == 20
    with pytest.raises(ValueError, match="do not follow position 20"):
        shard.apply(added(25, vectors))


def test_a_condition_that_no_layer_meets_is_told_with_the_types_that_are_there(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(1), metadata=['{"year": 1999}']))
    seal(shard, tmp_path)
    shard.apply(added(1, clustered(1), metadata=['{"author": "ann"}']))
    asked = [OneOf(field=field, values=("ann",)) for field in ("author", "year", "publisher")]
    unmet = [shard.search([query(clustered(1)[0], filter=condition)])[0][1] for condition in asked]
    assert unmet[0] == ()
    assert unmet[1] == (UnmetCondition(field="year", wanted="string", present=frozenset({"number"})),)
    assert unmet[2] == (UnmetCondition(field="publisher", wanted="string"),)
    assert shard.match(asked[0], EVERYTHING).sequences.tolist() == [2]


def test_rows_with_an_access_list_are_found_by_their_principals_alone_in_every_layer(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    lists = [(), ("user:ann",), ("user:bob", "group:law")]
    shard.apply(added(0, clustered(3), principals=lists))
    seal(shard, tmp_path)
    shard.apply(added(3, clustered(3), principals=lists))
    assert sorted(found(shard, np.ones(DIMENSION), visibility=Visibility())) == [1, 4]
    assert sorted(found(shard, np.ones(DIMENSION), visibility=Visibility(principals=frozenset({"group:law"})))) == [1, 3, 4, 6]
    assert sorted(found(shard, np.ones(DIMENSION))) == [1, 2, 3, 4, 5, 6]


def test_auto_says_what_it_picked_when_it_has_grown(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, spec_of(Metric.L2, hnsw_m=4, hnsw_ef_construction=8))
    shard.apply(added(0, clustered(20_000)))
    seal(shard, tmp_path)
    assert shard.status().index_kind is IndexKind.FLAT
    assert compact(shard, tmp_path, force=False)
    status = shard.status()
    assert (status.index_kind, status.segment_count, status.row_count) == (IndexKind.HNSW, 1, 20_000)
    assert found(shard, clustered(20_000)[77], 1) == [78]


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF_SQ8, IndexKind.IVF_PQ])
def test_filters_are_exact_at_every_selectivity(tmp_path: Path, kind: IndexKind) -> None:
    count, dimension = 40_000, 32
    vectors = clustered(count, dimension)
    numbers = np.random.default_rng(1).permutation(count)
    metadata = [f'{{"n": {number}}}' for number in numbers]
    spec = spec_of(Metric.COSINE, kind, dimension, hnsw_m=16, hnsw_ef_search=128)
    rows = stored(range(1, count + 1), vectors, metadata)
    block = RowBlock(
        sequences=rows.sequences, vectors=vectors, payloads=[b""] * count, document_ids=[""] * count,
        metadata_json=metadata, allowed_principals=[()] * count,
    )  # fmt: skip
    shard = open_shard(tmp_path, spec)
    shard.apply(nothing(0, count, dimension))
    checkpoint(shard, tmp_path, [write_rows(tmp_path, [block], spec)])
    assert shard.status().index_kind is kind
    queries = clustered(20, dimension, seed=2)
    for share, least in ((0.0001, 1.0), (0.01, 1.0), (0.1, 1.0), (0.5, 0.95), (1.0, 0.95)):
        condition = Range(field="n", lt=float(count * share))
        matching = np.flatnonzero(numbers < count * share)
        recalls = []
        for vector, (ranked, _) in zip(queries, shard.search([query(q, filter=condition) for q in queries]), strict=True):
            places = np.searchsorted(matching, ranked.sequences - 1)
            assert (matching[places] == ranked.sequences - 1).all()
            recalls.append(recall(places.tolist(), exact_scores(vectors[matching], vector, Metric.COSINE), 10))
        assert np.mean(recalls) >= least, share


def test_a_follower_adopts_whether_it_is_behind_level_or_ahead(tmp_path: Path) -> None:
    vectors = clustered(40)
    changes = [
        added(0, vectors[:20]),
        removed(20, [3, 4]),
        added(22, vectors[20:30]),
        removed(32, [5, 25]),
        added(34, vectors[30:]),
    ]
    leader = open_shard(tmp_path)
    for one in changes[:3]:
        leader.apply(one)
    seal(leader, tmp_path)
    manifest = newest(tmp_path)
    assert manifest is not None
    assert manifest.position == 32
    for applied in range(len(changes) + 1):
        follower = ShardIndex(tmp_path, spec_of(), 0, CODEC)
        for one in changes[:applied]:
            follower.apply(one)
        follower.adopt(manifest)
        assert follower.position == max(32, changes[applied - 1].through if applied else 0)
        assert not {3, 4} & set(found(follower, vectors[0], 100))
        for one in changes[max(3, applied) :]:
            follower.apply(one)
        kept = {*range(1, 21), *range(23, 33), *range(35, 45)} - {3, 4, 5, 25}
        assert set(found(follower, vectors[0], 100)) == kept
        assert follower.row_count == len(kept)


def test_rows_removed_while_their_head_is_written_or_merged_stay_removed(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(20)))
    frozen = shard.freeze_head()
    assert frozen is not None
    shard.apply(removed(20, [7]))
    entry = write_segment(frozen, tmp_path)
    shard.apply(removed(21, [8]))
    manifest = publish(tmp_path, shard.next_manifest(added=[entry]))
    shard.apply(removed(22, [9]))
    shard.adopt(manifest)
    plan = shard.plan_compaction(force=True)
    assert plan is not None
    shard.apply(removed(23, [10]))
    merged = run(plan)
    shard.apply(removed(24, [11]))
    checkpoint(shard, tmp_path, [merged], plan.inputs)
    expected = set(range(1, 21)) - {7, 8, 9, 10, 11}
    assert set(found(shard, np.ones(DIMENSION), 100)) == expected
    assert set(found(open_shard(tmp_path), np.ones(DIMENSION), 100)) == expected
    assert merged.row_count == 17


def test_a_head_is_sealed_while_a_compaction_runs(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    for after in (0, 10):
        shard.apply(added(after, clustered(10)))
        seal(shard, tmp_path)
    plan = shard.plan_compaction(force=True)
    assert plan is not None
    shard.apply(added(20, clustered(10)))
    seal(shard, tmp_path)
    checkpoint(shard, tmp_path, [run(plan)], plan.inputs)
    assert found(open_shard(tmp_path), np.zeros(DIMENSION), 100) == list(range(1, 31))
    assert shard.status().segment_count == 2


def test_a_compaction_of_nothing_but_gone_rows_leaves_no_segment(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(10)))
    seal(shard, tmp_path)
    shard.apply(removed(10, range(1, 11)))
    plan = shard.plan_compaction()
    assert plan is not None
    write_plan(plan, tmp_path)
    run(plan)
    checkpoint(shard, tmp_path, [read_result(plan)], plan.inputs)
    assert (shard.status().segment_count, shard.row_count, open_shard(tmp_path).position) == (0, 0, 20)


def test_segments_with_few_gone_rows_and_no_neighbours_to_merge_are_left_alone(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(100)))
    seal(shard, tmp_path)
    shard.apply(removed(100, range(1, 21)))
    assert shard.plan_compaction() is None
    shard.apply(removed(120, [21]))
    assert shard.plan_compaction() is not None


def test_a_graph_with_few_gone_rows_is_added_to_and_those_stay_gone(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, spec_of(Metric.L2, IndexKind.HNSW, hnsw_m=8))
    vectors = clustered(2400)
    shard.apply(added(0, vectors[:1000]))
    seal(shard, tmp_path)
    compact(shard, tmp_path)
    shard.apply(removed(1000, [11]))
    for after in (1001, 1101, 1201):
        shard.apply(added(after, vectors[after - 1 : after + 99]))
        seal(shard, tmp_path)
    plan = shard.plan_compaction()
    assert plan is not None
    assert plan.base
    checkpoint(shard, tmp_path, [run(plan)], plan.inputs)
    status = shard.status()
    assert (status.segment_count, status.index_kind, status.row_count, status.deleted_row_count) == (1, IndexKind.HNSW, 1299, 1)
    assert 11 not in found(shard, vectors[10], 1299)
    assert [found(shard, vectors[row], 1) for row in (9, 1250)] == [[10], [1252]]


class ShardAgainstDict(RuleBasedStateMachine):
    """Random writes and maintenance of a leader and a follower on one folder, against a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.leader = open_shard(self.folder)
        self.follower = open_shard(self.folder)
        self.log: list[Changes] = []
        self.model: dict[int, np.ndarray] = {}
        self.frozen: list[FrozenHead] = []
        self.last = 0

    def teardown(self) -> None:
        self.temporary.cleanup()

    def commit(self, changes: Changes) -> None:
        self.log.append(changes)
        self.last = changes.through
        self.leader.apply(changes)

    @rule(vectors=st.lists(st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION), min_size=1, max_size=6))
    def store(self, vectors: list[list[int]]) -> None:
        matrix = np.array(vectors, np.float32)
        self.model |= {self.last + 1 + at: row for at, row in enumerate(matrix)}
        self.commit(added(self.last, matrix))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, max_size=5, unique=True))
        for sequence in gone:
            del self.model[sequence]
        self.commit(removed(self.last, gone))

    @rule()
    def freeze(self) -> None:
        frozen = self.leader.freeze_head()
        if frozen is not None:
            self.frozen.append(frozen)

    @rule()
    def publish_frozen(self) -> None:
        checkpoint(self.leader, self.folder, [write_segment(frozen, self.folder) for frozen in self.frozen])
        self.frozen.clear()

    @rule()
    def publish_first_frozen(self) -> None:
        if self.frozen:
            checkpoint(self.leader, self.folder, [write_segment(self.frozen.pop(0), self.folder)])

    @rule(force=st.booleans())
    def merge(self, force: bool) -> None:
        compact(self.leader, self.folder, force=force)

    @rule()
    def restart_leader(self) -> None:
        sweep(self.folder)
        self.leader = open_shard(self.folder)
        self.frozen.clear()
        self.catch_up(self.leader, len(self.log))

    @rule(count=st.integers(0, 10))
    def follow(self, count: int) -> None:
        self.catch_up(self.follower, count)

    @rule()
    def adopt(self) -> None:
        manifest = newest(self.folder)
        if manifest is not None:
            self.follower.adopt(manifest)

    def catch_up(self, shard: ShardIndex, count: int) -> None:
        for changes in [one for one in self.log if one.through > shard.position][:count]:
            shard.apply(changes)

    @rule(vector=st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION), limit=st.integers(1, 30))
    def search(self, vector: list[int], limit: int) -> None:
        self.catch_up(self.follower, len(self.log))
        exact = {sequence: float(np.dot(row, vector)) for sequence, row in self.model.items()}
        best = sorted(exact, key=lambda sequence: (-exact[sequence], sequence))[:limit]
        for shard in (self.leader, self.follower):
            assert found(shard, np.array(vector), limit) == best

    @invariant()
    def counts_its_rows(self) -> None:
        assert self.leader.row_count == len(self.model)
        assert self.leader.match(None, EVERYTHING).sequences.tolist() == sorted(self.model)


TestShardAgainstDict = ShardAgainstDict.TestCase
TestShardAgainstDict.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
