import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.document import DOCUMENT_BYTES_MAX, EDGES_MAX, NODES_MAX
from gateway.faults import FAULTS_MAX
from gateway.validation import examine, validate
from gateway.values import DEPTH_MAX
from penstock.errors import InvalidFlow, Violation
from penstock.wire import to_status
from tests.gateway.fakes import CHAT, ECHO, RAG, document, node

IN, OUT = node("question", "input"), node("out", "output")


def faults(text: str | bytes) -> tuple[Violation, ...]:
    flow, found = examine(text)
    assert (flow is None) == bool(found)
    return found


def only(text: str | bytes) -> Violation:
    (fault,) = faults(text)
    return fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ('{"nodes": [', "not JSON"),
        (b'{"nodes": "\xff"}', "not JSON"),
        ('{"nodes": "\\ud800"}', "not JSON"),
        ("[" * 2000 + "]" * 2000, "not JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        (" " * (DOCUMENT_BYTES_MAX + 1), "at most 1048576"),
        ('{"nodes": ' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}", "nested more than 32 deep"),
    ],
)
def test_what_is_not_a_json_object_of_bounded_size_and_depth_is_refused(text: str | bytes, says: str) -> None:
    assert says in only(text).message


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({}, "nodes", "is required"),
        ({"nodes": {}}, "nodes", "must be a valid list"),
        ({"nodes": []}, "nodes", "at least 1 item"),
        ({"nodes": [OUT] * (NODES_MAX + 1)}, "nodes", "at most 256 items"),
        ({"nodes": [IN, OUT], "edges": [{}] * (EDGES_MAX + 1)}, "edges", "at most 2048 items"),
        ({"nodes": [IN, OUT], "edges": None}, "edges", "must be a valid list"),
        ({"nodes": [IN, OUT], "colour": 1}, "colour", "unknown field"),
        ({"nodes": [IN, OUT], "schema": "penstock.flow.v2"}, "schema", "penstock.flow.v1"),
        ({"nodes": [IN, OUT], "description": 7}, "description", "valid string"),
        ({"nodes": [7, IN, OUT]}, "nodes[0]", "must be a valid dictionary"),
        ({"nodes": [{"type": "input"}, OUT]}, "nodes[0].id", "is required"),
        ({"nodes": [{"id": "a"}, OUT]}, "nodes[0].type", "is required"),
        ({"nodes": [{"id": "a b", "type": "input"}, OUT]}, "nodes[0].id", "pattern"),
        ({"nodes": [{"id": "a" * 65, "type": "input"}, OUT]}, "nodes[0].id", "pattern"),
        ({"nodes": [{"id": "a\n", "type": "input"}, OUT]}, "nodes[0].id", "pattern"),
        ({"nodes": [{"id": "a.b", "type": "input"}, OUT]}, "nodes[0].id", "pattern"),
        ({"nodes": [{"id": "a", "type": "input", "params": []}, OUT]}, "nodes[0].params", "dictionary"),
        ({"nodes": [{"id": "a", "type": "input", "position": 1}, OUT]}, "nodes[0].position", "unknown field"),
        ({"nodes": [IN, OUT], "edges": [{"from": "question", "to": "out"}]}, "edges[0].from", "unknown field"),
        ({"nodes": [IN, OUT], "edges": [{"source": "question"}]}, "edges[0].target", "is required"),
        ({"nodes": [IN, OUT], "edges": [{"source": "question.", "target": "out"}]}, "edges[0].source", "pattern"),
    ],
)
def test_a_document_of_the_wrong_shape_is_told_where(value: dict[str, Any], field: str, says: str) -> None:
    assert any(fault.field == field and says in fault.message for fault in faults(json.dumps(value)))


@pytest.mark.parametrize(
    ("wrong", "field", "says", "suggests"),
    [
        (node("x", "retreive"), "type", 'unknown node type "retreive"', "did you mean 'retrieve'?"),
        (node("x", "retrieve"), "params.collection", "is required", "collection"),
        (node("x", "retrieve", collection="squad", topk=3), "params.topk", 'unknown field "topk"', "did you mean 'top_k'?"),
        (node("x", "retrieve", collection="squad", top_k="4"), "params.top_k", 'valid integer; found "4"', "passages"),
        (node("x", "retrieve", collection="squad", top_k=4.0), "params.top_k", "valid integer; found 4.0", ""),
        (node("x", "retrieve", collection="squad", top_k=True), "params.top_k", "valid integer; found true", ""),
        (node("x", "retrieve", collection="squad", top_k=0), "params.top_k", "greater than or equal to 1", ""),
        (node("x", "retrieve", collection="squad", top_k=10**6), "params.top_k", "less than or equal to 1000", ""),
        (node("x", "retrieve", collection="Squad!"), "params.collection", "pattern", ""),
        (node("x", "generate", temperature=3), "params.temperature", "less than or equal to 2", ""),
        (node("x", "generate", temperature="hot"), "params.temperature", "valid number", ""),
        (node("x", "generate", max_tokens=0), "params.max_tokens", "greater than or equal to 1", ""),
        (node("x", "generate", stop=["x"] * 17), "params.stop", "at most 16", ""),
        (node("x", "generate", stop=[""]), "params.stop.0", "1 to 256 bytes", ""),
        (node("x", "generate", seed=2**63), "params.seed", "", ""),
        (node("x", "prompt"), "params.template", "is required", ""),
        (node("x", "prompt", template="a {b"), "params.template", "a lone { at character 3", ""),
        (node("x", "prompt", template="a }"), "params.template", "a lone } at character 3", ""),
        (node("x", "prompt", template="{a b}"), "params.template", "a lone {", ""),
        (node("x", "transform"), "params.operation", "is required", "upper"),
        (node("x", "transform", operation="uper"), "params.operation", 'unknown operation "uper"', "did you mean 'upper'?"),
        (node("x", "transform", operation=["upper"]), "params.operation", "unknown operation", "known: "),
        (node("x", "transform", operation="replace", old="", new=""), "params.old", "at least 1 character", ""),
        (node("x", "transform", operation="upper", max=1), "params.max", "unknown field", "operation"),
        (
            node("x", "transform", operation="format_documents", template="{title}"),
            "params.template",
            "unknown variable {title}; known: chunk_id, document_id, index, score, text",
            "",
        ),
        (node("x", "input", type="string"), "params.type", "'text', 'number', 'boolean', 'documents'", "type"),
        (node("x", "input", type="number", default="3"), "params", "the default is not of the type 'number'", ""),
        (node("x", "input", type="boolean", required=False), "params", "needs a default", ""),
        (node("x", "output", name="no way"), "params.name", "pattern", ""),
    ],
)
def test_a_wrong_parameter_is_told_with_its_node_its_place_and_what_to_do(
    wrong: dict[str, Any], field: str, says: str, suggests: str
) -> None:
    fault = only(document(IN, OUT, wrong, edges=["question > out"]))
    assert (fault.node_id, fault.field) == ("x", field)
    assert says in fault.message
    assert suggests in fault.suggestion


def test_two_nodes_of_one_id_are_a_fault_of_the_second() -> None:
    fault = only(document(IN, OUT, OUT, edges=["question > out"]))
    assert (fault.node_id, fault.field, fault.message) == ("out", "nodes[2].id", "another node has this id")


@pytest.mark.parametrize(
    ("edge", "field", "says", "suggests"),
    [
        ("questoin > out", "edges[1].source", "there is no node 'questoin'", "did you mean 'question'?"),
        ("question > uot", "edges[1].target", "there is no node 'uot'", "did you mean 'out'?"),
        ("question.valeu > p", "edges[1].source", "the node has no output 'valeu'", "did you mean 'value'?"),
        ("question > p.contxt", "edges[1].target", "the node has no input 'contxt'", "did you mean 'context'?"),
        ("out > p.context", "edges[1].source", "gives nothing to others", "output"),
        ("out.value > p.context", "edges[1].source", "gives nothing to others", "output"),
        ("p > question", "edges[1].target", "takes nothing from others", "remove"),
    ],
)
def test_an_edge_to_what_is_not_there_is_told(edge: str, field: str, says: str, suggests: str) -> None:
    found = faults(document(IN, OUT, node("p", "prompt", template="{context}"), edges=["question > out", edge]))
    fault = next(each for each in found if each.field == field)
    assert says in fault.message
    assert suggests in fault.suggestion


def test_an_input_that_nothing_feeds_is_told() -> None:
    fault = only(document(node("docs", "retrieve", collection="squad"), OUT, edges=["docs > out"]))
    assert (fault.node_id, fault.field, fault.message) == ("docs", "inputs.query", "the input 'query' is not connected")
    assert fault.suggestion == 'add an edge with the target "docs.query"'


@pytest.mark.parametrize("target", ["out", "out.value"])
def test_an_input_that_two_edges_feed_is_told(target: str) -> None:
    found = faults(document(IN, node("other", "input"), OUT, edges=["question > out.value", f"other > {target}"]))
    assert [fault.message for fault in found] == ["the input 'value' is connected twice"]


def test_a_wrong_type_names_both_nodes_and_both_types() -> None:
    fault = only(
        document(
            IN, node("docs", "retrieve", collection="squad"), node("model", "generate"), OUT,
            edges=["question > docs", "docs > model", "model > out"],
        )
    )  # fmt: skip
    assert fault.node_id == "model"
    assert fault.message == "docs.documents gives documents, but model.prompt takes text"


def test_a_cycle_is_told_by_its_path_in_the_direction_of_its_edges() -> None:
    found = faults(
        document(
            node("a", "transform", operation="upper"), node("b", "transform", operation="lower"),
            node("c", "transform", operation="strip"), OUT,
            edges=["a > b", "b > c", "c > a", "c > out"],
        )
    )  # fmt: skip
    assert len(found) == 1
    path = found[0].message.removeprefix("the edges form a cycle: ").split(" -> ")
    assert path[0] == path[-1] == found[0].node_id
    assert set(pairwise(path)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_node_that_feeds_itself_is_a_cycle() -> None:
    found = faults(document(node("a", "transform", operation="upper"), OUT, edges=["a > a", "a > out"]))
    assert found[0].message == "the edges form a cycle: a -> a"


def test_a_flow_without_an_output_is_refused() -> None:
    assert only(document(IN, edges=[])).message == "no node of type output"


@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_name_that_two_inputs_or_two_outputs_share_is_told_at_both(kind: str) -> None:
    nodes = [IN, OUT, node("x", kind, name="same"), node("same", kind)]
    edges = ["question > out"] + (["question > x", "question > same"] if kind == "output" else [])
    assert {(fault.node_id, fault.field) for fault in faults(document(*nodes, edges=edges))} == {
        ("x", "params.name"),
        ("same", "params.name"),
    }


def test_all_faults_are_told_at_once_and_none_twice() -> None:
    found = faults(
        document(
            IN, node("a", "nope"), node("b", "retrieve", top_k="x"), node("c", "prompt", template="{"), OUT,
            edges=["a > b", "b > c", "c > out", "ghost > c", "question > b"],
        )
    )  # fmt: skip
    assert [(fault.node_id, fault.field) for fault in found] == [
        ("a", "type"),
        ("b", "params.collection"),
        ("b", "params.top_k"),
        ("c", "params.template"),
        ("", "edges[3].source"),
    ]


def test_a_node_that_reaches_no_output_is_allowed() -> None:
    flow = validate(
        document(IN, OUT, node("aside", "transform", operation="upper"), edges=["question > out", "question > aside"])
    )
    assert {each.id for each in flow.nodes} == {"question", "out", "aside"}


def test_a_refusal_carries_few_enough_faults_for_the_trailers_of_a_call() -> None:
    bad = [node(f"n{index}", "x" * 4000) for index in range(200)]
    with pytest.raises(InvalidFlow, match=r"the flow has 100 faults: .*ValidateFlow lists all 100") as caught:
        validate(document(*bad, OUT, edges=["n0 > out"]))
    assert 5 < len(caught.value.violations) < 100
    assert len(to_status(caught.value).SerializeToString()) < 6000


def test_the_version_of_a_flow_does_not_depend_on_white_space_or_the_order_of_keys() -> None:
    value = json.loads(RAG)
    same = json.dumps(dict(reversed(value.items())), indent=3)
    assert validate(same).content_hash == validate(RAG).content_hash
    assert validate(same.replace('"top_k": 2', '"top_k": 3')).content_hash != validate(RAG).content_hash


def test_inputs_and_outputs_are_in_the_order_of_the_document() -> None:
    flow = validate(
        document(
            node("z", "output"), node("b", "input", type="number", default=1), node("a", "input", name="first"),
            node("y", "output", name="out"), edges=["a > z", "b > y"],
        )
    )  # fmt: skip
    assert [(each.name, each.type.value, each.required, each.default) for each in flow.inputs] == [
        ("b", "number", False, 1),
        ("first", "text", True, None),
    ]
    assert flow.outputs == ("z", "out")


@pytest.mark.parametrize("text", [CHAT, RAG, ECHO])
def test_nodes_are_in_an_order_in_which_they_can_run(text: str) -> None:
    flow = validate(text)
    order = [each.id for each in flow.nodes]
    assert all(order.index(edge.source) < order.index(edge.target) for edge in flow.edges)


def test_the_examples_are_valid_and_the_two_spellings_say_the_same() -> None:
    folder = Path(__file__).parents[2] / "examples/flows"
    flows = {path.stem: validate(path.read_bytes()) for path in folder.glob("*.json")}
    assert set(flows["rag"].edges) == set(flows["rag-short"].edges)
    assert flows["rag"].nodes == flows["rag-short"].nodes
    assert "echo" in flows


def hostile_documents() -> dict[str, str]:
    """Documents made to take as long as they can: each has tens of thousands of faults or of parts."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 2
    ids = [letters[shift:] + letters[:shift] + str(shift) for shift in range(26)]
    known = [node(name + str(copy), "transform", operation="upper") for name in ids for copy in range(9)]
    fields = {f"x{number}": 1 for number in range(80_000)}
    variables = "".join(f"{{v{number}}}" for number in range(100_000))
    prompt = node("p", "prompt", template=variables)
    return {
        "edges between misspelt nodes": document(*known, edges=[f"{letters}{n} > {letters[::-1]}{n}" for n in range(2048)]),
        "unknown parameters": document(node("p", "generate", **fields), edges=[]),
        "unknown fields": json.dumps(fields),
        "unknown fields of a node": json.dumps({"nodes": [{"id": "a", "type": "input"} | fields]}),
        "edges to one input": document(*known[:2], edges=[f"{known[0]['id']} > {known[1]['id']}"] * 2048),
        "variables": document(node("a", "input"), prompt, edges=["a > p"] * 2048),
        "braces": document(node("p", "prompt", template="{{" * 400_000), edges=[]),
        "stop strings": document(node("p", "generate", stop=[""] * 200_000), edges=[]),
        "a path": document(node("p", "transform", operation="get", path=[[]] * 200_000), edges=[]),
    }


@pytest.mark.parametrize("name", hostile_documents())
@pytest.mark.timeout(20)
def test_a_hostile_document_is_told_its_faults_in_bounded_time_and_space(name: str) -> None:
    found = faults(hostile_documents()[name])
    assert 1 <= len(found) <= FAULTS_MAX
    assert sum(len(str(fault)) for fault in found) < 1500 * FAULTS_MAX
