"""sql: its ports, what it binds, and what it gives."""

from typing import Any

import pytest

from gateway.validation import examine
from penstock.errors import FlowMisconfigured, InvalidArgument
from tests.gateway.fakes import World, document, node

QUERY = "SELECT id, total FROM orders WHERE customer = :customer AND total > :least"


def flow(query: str = QUERY, inputs: dict[str, str] | None = None, **params: Any) -> str:
    given = {"customer": "text", "least": "number"} if inputs is None else inputs
    return document(
        *(node(name, "input", type=kind) for name, kind in given.items()),
        node("look", "sql", connection="orders", query=query, **params),
        *(node(name, "output") for name in ("rows", "text", "count")),
        edges=[*(f"{name} > look.{name}" for name in given), *(f"look.{name} > {name}" for name in ("rows", "text", "count"))],
    )


async def test_parameters_are_ports_and_rows_are_json_and_a_plain_table(world: World) -> None:
    world.databases.rows = [{"id": 7, "total": 9.5, "note": "a\nb"}, {"id": 8, "total": None, "note": {"x": 1}}]
    result = await world.compile(flow()).run({"customer": "o'hara", "least": 3})
    assert result.outputs == {
        "rows": world.databases.rows,
        "text": 'id | total | note\n7 | 9.5 | a b\n8 |  | {"x":1}',
        "count": 2,
    }
    connection, sql, values = world.databases.calls[0]
    assert (connection, values) == ("orders", {"customer": "o'hara", "least": 3})
    assert sql == "SELECT id, total FROM orders WHERE customer = ? AND total > ?"
    assert result.bounded_nodes == ()


async def test_no_rows_are_an_empty_text(world: World) -> None:
    result = await world.compile(flow()).run({"customer": "nobody", "least": 3})
    assert result.outputs == {"rows": [], "text": "", "count": 0}


async def test_rows_beyond_the_bound_are_left_out_and_the_run_says_so(world: World) -> None:
    world.databases.rows = [{"id": number} for number in range(5)]
    result = await world.compile(flow(rows_max=2)).run({"customer": "a", "least": 0})
    assert (result.outputs["count"], result.bounded_nodes) == (2, ("look",))


async def test_null_is_a_value_and_a_list_is_none(world: World) -> None:
    compiled = world.compile(flow("SELECT :x", {"x": "json"}))
    await compiled.run({"x": None})
    assert world.databases.calls[-1][2] == {"x": None}
    with pytest.raises(InvalidArgument, match=":x of a query is a text") as refused:
        await compiled.run({"x": ["a"]})
    assert refused.value.metadata["node"] == "look"


async def test_a_query_may_be_given_by_the_run_and_then_has_no_parameters(world: World) -> None:
    text = document(
        node("query", "input"), node("look", "sql", connection="orders"), node("text", "output"),
        edges=["query > look", "look > text"],
    )  # fmt: skip
    world.databases.rows = [{"n": 3}]
    compiled = world.compile(text)
    assert (await compiled.run({"query": "SELECT count(*) AS n FROM orders;"})).outputs == {"text": "n\n3"}
    assert world.databases.calls == [("orders", "SELECT count(*) AS n FROM orders", {})]
    refused = [
        ("DROP TABLE orders", "must begin with SELECT"),
        ("SELECT :x", "parameter :x"),
        ("S" * 30_000, "30000 characters"),
    ]
    for query, message in refused:
        with pytest.raises(InvalidArgument, match=message):
            await compiled.run({"query": query})


async def test_what_the_database_says_ends_the_run_and_names_the_node(world: World) -> None:
    world.databases.error = FlowMisconfigured("no such table")
    with pytest.raises(FlowMisconfigured) as refused:
        await world.compile(flow()).run({"customer": "a", "least": 0})
    assert refused.value.metadata["node"] == "look"


@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        ({"query": "DROP TABLE orders"}, "params.query", "must begin with SELECT"),
        ({"parameters": {"costumer": "text"}}, "params", "no parameter :costumer"),
        ({"parameters": {"customer": "date"}}, "params.parameters.customer", "must be 'text'"),
        ({"parameters": {"customer": "number"}}, "edges[0]", "takes number"),
        ({"connection": "Or ders"}, "params.connection", "match pattern"),
        ({"rows_max": 0}, "params.rows_max", "greater than or equal to 1"),
    ],
)
def test_faults_name_the_field(params: dict[str, Any], field: str, message: str) -> None:
    query = params.pop("query", QUERY)
    connection = params.pop("connection", None)
    text = flow(query, **params)
    if connection:
        text = text.replace('"connection": "orders"', f'"connection": "{connection}"')
    _, faults = examine(text)
    assert [(fault.node_id, fault.field) for fault in faults if message in fault.message] == [("look", field)]


GIVEN = document(
    node("asked", "input"),
    node("look", "sql", connection="orders"),
    node("rows", "output"),
    edges=["asked > look.query", "look.rows > rows"],
)


async def test_a_node_without_a_query_is_given_one_that_reads(world: World) -> None:
    world.databases.rows = [{"id": 7}]
    flow = world.compile(GIVEN)
    assert (await flow.run({"asked": "SELECT id FROM orders"})).outputs == {"rows": [{"id": 7}]}
    assert world.databases.calls == [("orders", "SELECT id FROM orders", {})]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("DELETE FROM orders", "must begin with SELECT"),
        ("SELECT 1; DROP TABLE orders", "one statement"),
        ("SELECT :x", "the parameter :x"),
        ("SELECT " + "1" * 20_001, "at most 20000"),
    ],
)
async def test_a_query_that_a_run_gives_is_checked_before_it_is_sent(world: World, query: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await world.compile(GIVEN).run({"asked": query})
    assert world.databases.calls == []


def test_parameters_without_a_query_are_refused() -> None:
    _, faults = examine(document(node("look", "sql", connection="orders", parameters={"x": "text"}), edges=[]))
    assert "no parameter :x" in faults[0].message
