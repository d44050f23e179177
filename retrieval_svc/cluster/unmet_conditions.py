"""Tells a filter that finds nothing today from one that cannot: a field that no row has, or has with another type only."""

from collections.abc import Sequence

from penstock.errors import InvalidArgument, Violation
from retrieval_svc.values import ShardAnswer, UnmetCondition


def check_answers(answers: Sequence[ShardAnswer]) -> None:
    """Raises InvalidArgument when every shard that has rows says of the same condition that no row could meet it."""
    with_rows = [answer for answer in answers if answer.row_count > 0]
    if not with_rows:
        return
    for at, first in enumerate(with_rows[0].found):
        if first.unmet:
            check_unmet([answer.found[at].unmet for answer in with_rows])


def check_unmet(reports: Sequence[Sequence[UnmetCondition]]) -> None:
    """The same for the reports of all shards that have rows, one each."""
    if not reports:
        return
    present: dict[tuple[str, str], set[str]] = {(each.field, each.wanted): set() for each in reports[0]}
    for report in reports:
        present = {key: present[key] for each in report if (key := (each.field, each.wanted)) in present}
        for each in report:
            present.get((each.field, each.wanted), set()).update(each.present)
    if present:
        raise _refusal([(field, wanted, types) for (field, wanted), types in present.items()])


def _refusal(conditions: Sequence[tuple[str, str, set[str]]]) -> InvalidArgument:
    told = [_told(field, wanted, types) for field, wanted, types in conditions]
    return InvalidArgument(
        "; ".join(told),
        metadata={"field": conditions[0][0]},
        violations=[Violation(field="filter", message=message) for message in told],
    )


def _told(field: str, wanted: str, types: set[str]) -> str:
    if not types:
        return f"no chunk has the metadata field {field!r}; check its name (keys of nested objects are joined by dots)"
    found = " or ".join(sorted(types))
    return f"the filter compares the metadata field {field!r} with a {wanted}, but in the chunks it is a {found}"
