from collections import Counter

import pytest

from gateway.replicas.prefixes import LINKS_OF_ALL_MAX, Prefix
from gateway.replicas.replica import ReplicaLimits, ReportedLoad
from penstock.errors import BackendUnavailable, InvalidArgument, NotReady, Overloaded
from tests.gateway.replicas.fakes import INSTRUCTIONS, join, picked, pool, rag


def report(running: int = 0, waiting: int = 0, running_max: int = 64) -> ReportedLoad:
    return ReportedLoad(running=running, waiting=waiting, running_max=running_max, waiting_max=8)


def test_questions_about_one_passage_meet_at_one_replica_and_passages_spread() -> None:
    replicas = pool(3)
    homes = {passage: {picked(replicas, rag(passage, f"Question {n}?")).address for n in range(4)} for passage in range(60)}
    assert all(len(found) == 1 for found in homes.values())
    spread = Counter(next(iter(found)) for found in homes.values())
    assert len(spread) == 3
    assert min(spread.values()) >= 8


def test_two_gateways_that_know_nothing_of_each_other_agree() -> None:
    one, two = pool(3), pool(3)
    for passage in range(20):  # Both have seen enough of the flow to know its instructions, but not the same passages.
        picked(one, rag(passage))
        picked(two, rag(20 + passage))
    places = {passage: picked(one, rag(passage)).address for passage in range(40, 100)}
    assert places == {passage: picked(two, rag(passage)).address for passage in reversed(range(40, 100))}


def test_a_conversation_stays_where_its_beginning_is() -> None:
    replicas = pool(5)
    talk, homes = INSTRUCTIONS, set()
    for turn in range(20):
        talk += f"\nUser: question {turn}, which is a long one. " + "And the answer to it is longer. " * 12
        homes.add(picked(replicas, talk).address)
    assert len(homes) <= 2, "the first turns may be too short to bind"


def test_a_session_keeps_its_replica_when_its_prompts_share_nothing() -> None:
    replicas = pool(5)
    assert len({picked(replicas, rag(turn), session="s1").address for turn in range(20)}) == 1


def test_prompts_with_nothing_to_share_go_where_least_is_to_do() -> None:
    replicas = pool(3)
    homes = []
    for _ in range(6):
        replica = picked(replicas, "Hello")
        replica.called()
        homes.append(replica.address)
    assert sorted(Counter(homes).values()) == [2, 2, 2]


@pytest.mark.parametrize("load_factor", [1.0, 1.25, 2.0])
def test_no_replica_gets_more_than_its_share_of_one_hot_prompt(load_factor: float) -> None:
    replicas = pool(4, ReplicaLimits(load_factor=load_factor))
    for total in range(1, 101):
        picked(replicas, rag(1)).called()
        bound = load_factor * total / 4
        assert max(each.load for each in replicas.all()) < bound + 1
    assert max(each.load for each in replicas.all()) >= 25 * min(load_factor, 1.2), "affinity uses the room that it has"


def test_a_replica_whose_batch_has_room_is_not_loaded() -> None:
    replicas = pool(3)
    for each in replicas.all():
        each.reported(report(running_max=64))
    homes = Counter()
    for _ in range(8):
        replica = picked(replicas, rag(1))
        replica.called()
        homes[replica.address] += 1
    assert list(homes.values()) == [8], "an eighth of 64 slots"


def test_what_others_sent_to_a_replica_counts_as_its_load() -> None:
    replicas = pool(2)
    home = picked(replicas, rag(1))
    for _ in range(3):
        home.called()
    home.reported(report(running=10, waiting=2, running_max=16))
    assert (home.others, home.load) == (9, 12)
    assert picked(replicas, rag(1)) is not home
    home.reported(report(running=3, running_max=64))
    assert home.load == 3
    assert home in {picked(replicas, rag(1, f"Question {n}? " * 20)) for n in range(20)}, "both have the passage by now"


def test_a_full_replica_is_passed_over_and_a_refusal_makes_it_full_until_its_next_report() -> None:
    replicas = pool(2)
    home = picked(replicas, rag(1))
    home.reported(report(running_max=64))
    replicas.failed(home, Overloaded("full", retry_after_s=1), began=0.0)
    assert home.is_full
    assert picked(replicas, rag(1)) is not home
    home.reported(report(running_max=64))
    assert home in {picked(replicas, rag(1, f"Question {n}? " * 20)) for n in range(20)}, "both have the passage by now"


def test_only_a_replica_that_said_that_it_has_room_gets_what_another_refused() -> None:
    replicas = pool(3)
    one, two, three = replicas.all()
    assert replicas.with_room([one]) is None, "nobody has said anything"
    two.reported(report(running=8, waiting=1, running_max=8))
    three.reported(report(running=7, running_max=8))
    assert replicas.with_room([one]) is three
    assert replicas.with_room([one, three]) is None


@pytest.mark.parametrize("error", [BackendUnavailable("gone"), NotReady("draining")])
def test_one_that_is_unavailable_is_put_aside_and_then_tried_once(error: Exception) -> None:
    replicas = pool(2, ReplicaLimits(aside_min_s=60))
    home = picked(replicas, rag(1))
    replicas.failed(home, error, began=0.0)
    assert picked(replicas, rag(1)) is not home
    home.probation.aside_until = 0.0
    assert picked(replicas, rag(2)) is home, "its time is over: one call finds out"
    home.called()
    assert picked(replicas, rag(1)) is not home


def test_a_bad_request_says_nothing_of_the_replica() -> None:
    replicas = pool(2)
    home = picked(replicas, rag(1))
    replicas.failed(home, InvalidArgument("no"), began=0.0)
    assert picked(replicas, rag(1)) is home


def test_one_that_is_not_ready_or_silent_is_asked_only_where_there_is_no_other() -> None:
    replicas = pool(2)
    home = picked(replicas, rag(1))
    home.ready = False
    other = picked(replicas, rag(1))
    assert other is not home
    home.ready = True
    for _ in range(3):
        home.was_silent()
    assert picked(replicas, rag(1)) is other
    other.ready = False
    assert replicas.pick(Prefix(rag(1)), [other]) is home
    assert replicas.pick(Prefix(rag(1)), [other, home]) is None


def test_a_replica_that_leaves_moves_its_own_passages_only_and_one_that_joins_takes_few() -> None:
    replicas = pool(4)
    before = {passage: picked(replicas, rag(passage)).address for passage in range(100)}
    join(replicas, "r0:1", "r1:1", "r2:1")
    after = {passage: picked(replicas, rag(passage)).address for passage in range(100)}
    assert {passage for passage in before if before[passage] != after[passage]} == {
        passage for passage in before if before[passage] == "r3:1"
    }
    join(replicas, "r0:1", "r1:1", "r2:1", "r4:1")
    assert {passage: picked(replicas, rag(passage)).address for passage in range(100)} == after, "what is cached stays"
    new = Counter(picked(replicas, f"{INSTRUCTIONS} Something new: {n}. " + "More. " * 200).address for n in range(100))
    assert 10 <= new["r4:1"] <= 45


def test_the_tables_of_many_replicas_together_are_bounded() -> None:
    replicas = pool(64)
    assert replicas._links_max * 64 <= LINKS_OF_ALL_MAX
