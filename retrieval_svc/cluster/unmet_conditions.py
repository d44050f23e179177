"""Tells a filter that finds nothing today from one that cannot: a field that no row ever had, or had with another type only."""

from collections.abc import Collection, Sequence

from penstock.errors import InvalidArgument, Violation
from retrieval_svc.values import MatchedRows, ShardAnswer, UnmetCondition


def check_answers(answers: Sequence[ShardAnswer]) -> None:
    """Raises InvalidArgument when every shard says of the same condition that no row which it has, or had, could meet it.

    Nothing is refused where no shard has rows: who searches an empty collection has not misspelt anything.
    """
    if not any(answer.row_count for answer in answers):
        return
    for at, first in enumerate(answers[0].found):
        if first.unmet:
            check_unmet([answer.found[at].unmet for answer in answers])


def check_matched(matched: Collection[MatchedRows]) -> None:
    """The same for the rows that match one filter, of every shard."""
    if any(rows.row_count for rows in matched):
        check_unmet([rows.unmet for rows in matched])


def check_unmet(reports: Sequence[Sequence[UnmetCondition]]) -> None:
    """The same for the reports of all shards, one each."""
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
