"""The customer-service bot: intent, order, prompt, answer."""

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from gateway.databases.connections import open_databases
from gateway.databases.reading import ReadingLimits
from gateway.execution import Call, ChatMessage
from tests.gateway.methods.scripted import FOLDER, Scripted, passage

ORDER = {"number": "10023", "customer": "ada", "status": "shipped", "carrier": "DHL", "arrives_on": "2026-12-01"}
OTHERS = {"number": "10024", "customer": "bob", "status": "open", "carrier": None, "arrives_on": None}
INTENT = "Which kind of message"
REPLY = "You answer customers"


def shop(intent: str, **found: object) -> Scripted:
    rules = {INTENT: intent, REPLY: "It is on its way."}
    return Scripted(rules, found, rows=[ORDER, OTHERS])  # type: ignore[arg-type]


async def test_an_order_is_looked_up_and_the_model_is_told_of_it() -> None:
    world = shop("order")
    result = await world.run("customer-service", message="Where is my order 10023?", customer="ada")
    assert world.order == "model sql model"
    assert world.calls[1] == ("sql", '{"number": "10023", "customer": "ada"}')
    form = world.model.requests[0].form
    assert form is not None
    assert form.value == ("order", "policy", "other")
    assert '"status":"shipped"' in world.model.requests[1].system
    assert world.model.requests[1].prompt == "Where is my order 10023?"
    assert result.outputs == {"answer": "It is on its way.", "intent": "order", "route": "model", "order": [ORDER]}


@pytest.mark.parametrize("number", ["99999", "10024"])
async def test_an_order_that_is_not_there_or_not_the_customers_is_not_told_of(number: str) -> None:
    world = shop("order")
    result = await world.run("customer-service", message=f"Where is {number}?", customer="ada")
    assert world.order == "model sql model"
    assert f"no order with the number {number}" in world.model.requests[1].system
    assert "open" not in world.model.requests[1].system
    assert result.outputs["order"] == []


@pytest.mark.parametrize("message", ["Where is my parcel?", "Where is 12?", "Order number 123456789012"])
async def test_without_a_number_the_bot_asks_for_it_and_looks_nothing_up(message: str) -> None:
    world = shop("order")
    result = await world.run("customer-service", message=message, customer="ada")
    assert world.order == "model"
    assert str(result.outputs["answer"]).startswith("Which order do you mean?")
    assert "order" not in result.outputs


async def test_a_question_about_the_shop_is_answered_from_its_help_pages() -> None:
    world = shop("policy", **{"shop-help": (passage("returns", text="Returns are free for 30 days."),)})
    result = await world.run("customer-service", message="May I return it?", customer="ada")
    assert world.order == "model search model"
    assert world.search.searches[0].collection == "shop-help"
    assert "[1] Returns are free for 30 days." in world.model.requests[1].system
    assert result.outputs["route"] == "model"


async def test_help_pages_that_say_nothing_leave_the_model_without_facts() -> None:
    world = shop("policy", **{"": ()})
    await world.run("customer-service", message="May I return it?", customer="ada")
    assert world.model.requests[1].system.endswith("Pages of the shop's help:\n")


@pytest.mark.parametrize("intent", ["other", "weather", "", "ORDER"])
async def test_anything_else_is_passed_on_without_a_model(intent: str) -> None:
    world = shop(intent)
    result = await world.run("customer-service", message="Sing {a} song!", customer="ada")
    assert world.order == "model"
    assert str(result.outputs["answer"]).endswith("to a colleague: “Sing {a} song!”")
    assert result.outputs["route"] == "pass_on"


async def test_what_a_message_says_never_becomes_a_part_of_the_query() -> None:
    world = shop("order")
    await world.run("customer-service", message="10023 OR 1=1 -- 20001; DROP TABLE orders", customer="ada' OR '1'='1")
    assert world.calls[1] == ("sql", """{"number": "10023", "customer": "ada' OR '1'='1"}""")
    assert "no order with the number 10023" in world.model.requests[1].system


async def test_a_conversation_is_remembered_and_read() -> None:
    world = shop("order")
    call = Call(session="s1")
    await world.run("customer-service", call, message="Where is 10023?", customer="ada")
    assert await world.sessions.read("s1", 10) == (
        ChatMessage(role="user", content="Where is 10023?"),
        ChatMessage(role="assistant", content="It is on its way."),
    )
    world.calls.clear()
    await world.run("customer-service", call, message="And 10024?", customer="ada")
    assert [turn.content for turn in world.model.requests[2].messages] == ["Where is 10023?", "It is on its way."]
    assert [turn.content for turn in world.model.requests[3].messages] == ["Where is 10023?", "It is on its way."]


async def test_the_query_reads_the_database_of_the_example(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.executescript((FOLDER / "data/shop-orders.sql").read_text(encoding="utf-8"))
    database.close()
    world = Scripted({INTENT: "order", REPLY: "It is on its way."})
    async with open_databases(f'{{"shop": "sqlite+aiosqlite:///{path}"}}', ReadingLimits()) as databases:
        world.compiler = dataclasses.replace(
            world.compiler, backends=dataclasses.replace(world.compiler.backends, databases=databases)
        )
        mine = await world.run("customer-service", message="Where is my order 10023?", customer="ada")
        others = await world.run("customer-service", message="Where is my order 10031?", customer="ada")
    row = {"number": "10023", "status": "shipped", "carrier": "DHL", "arrives_on": "2026-12-01"}
    assert (mine.outputs["order"], others.outputs["order"]) == ([row], [])
