"""What a query's parameters are, and which texts are no query that reads."""

import time

import pytest

from gateway.nodes.sql_text import parsed


@pytest.mark.parametrize(
    ("text", "pieces", "parameters"),
    [
        ("SELECT 1", ("SELECT 1",), ()),
        ("SELECT * FROM o WHERE id = :id AND c=:c", ("SELECT * FROM o WHERE id = ", " AND c=", ""), ("id", "c")),
        ("select :a, :a", ("select ", ", ", ""), ("a", "a")),
        ("SELECT ':x', \":y\", `:z`, 'it''s :w' -- :v\n, /* :u */ :t", None, ("t",)),
        ("SELECT $$ :x $$, $tag$ :y $$ $tag$, :z::text, now()::date, a[1:2]", None, ("z",)),
        ("WITH a AS (SELECT :n AS n) SELECT n FROM a;  -- the end\n", None, ("n",)),
        ("  -- first\n (SELECT 1)", ("   \n (SELECT 1)",), ()),
        ("VALUES (1)", ("VALUES (1)",), ()),
        ("TABLE orders", ("TABLE orders",), ()),
    ],
)  # fmt: skip
def test_parameters_stand_outside_of_texts_names_and_comments(
    text: str, pieces: tuple[str, ...] | None, parameters: tuple
) -> None:
    query = parsed(text)
    assert query.parameters == parameters
    assert len(query.pieces) == len(parameters) + 1
    if pieces is not None:
        assert query.pieces == pieces


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("DELETE FROM orders", "must begin with SELECT, WITH, VALUES or TABLE"),
        ("PRAGMA query_only = OFF", "must begin"),
        ("ATTACH 'x.db' AS x", "must begin"),
        ("COPY orders TO '/tmp/x'", "must begin"),
        ("DO $$ BEGIN END $$", "must begin"),
        ("-- nothing", "must begin"),
        ("SELECT 1; DELETE FROM orders", "semicolon"),
        ("SELECT 1;;SELECT 2", "semicolon"),
        ("SELECT $1", "write :name"),
        ("SELECT " + ", ".join(f":p{n}" for n in range(33)), "33 parameters"),
        ("SELECT :" + "a" * 65, "more than 64"),
    ],
)
def test_what_is_not_one_query_that_reads_is_told(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parsed(text)


@pytest.mark.parametrize("part", ["/*", "'", '"', "`", "$$", "$a$", "--", "(", ":", "''"])
def test_no_text_takes_long_to_read(part: str) -> None:
    begun = time.perf_counter()
    parsed("SELECT " + part * 6000)
    assert time.perf_counter() - begun < 0.5
