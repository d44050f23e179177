"""`penstock ask` and `penstock flow ...`."""

import json
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from penstock.cli.command import GATEWAY_OPTION, api_key, in_loop
from penstock.cli.rendering import print_sources
from penstock.clients import Done, Penstock, RunResult, Sources, Token
from penstock.errors import InvalidArgument, InvalidFlow

CHAT_INPUT = "input_value"
"""What LangFlow calls a chat's message, and the input that it becomes."""


SESSION_OPTION: Final = click.option("--session", default="", help="The conversation that the run belongs to; any name.")


@click.group(name="flow")
def flow_commands() -> None:
    """Validate, keep, list and run flows."""


@flow_commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
def validate(files: tuple[str, ...]) -> None:
    """Check flow documents here, without a server. Every fault is told with its node."""
    check = next(iter(entry_points(group="penstock.flow_validator"))).load()
    for file in files:
        check(Path(file).read_bytes())
        print(f"{file}: valid")


@flow_commands.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--name", default="", help="Under which name; the file's own without its suffix by default.")
@GATEWAY_OPTION
@in_loop
async def push(file: str, name: str, gateway: str) -> None:
    """Keep a flow on the gateway, replacing what has its name."""
    async with Penstock(gateway, api_key=api_key()) as client:
        flow = await client.create_flow(name or Path(file).stem, Path(file).read_text(encoding="utf-8"), replace=True)
    print(f"{flow.name} {flow.content_hash[:12]}")


@flow_commands.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--name", default="", help="Under which name; the flow's own by default.")
@click.option("--model", default="default", show_default=True, help="Our model, in place of whichever vendor's.")
@click.option(
    "--collection", default=None, help="Our collection, in place of every vector store; the store's own name by default."
)
@click.option(
    "--connection", default="default", show_default=True, help="The gateway's SQL connection, in place of a database URL."
)
@click.option("--explain", is_flag=True, help="Print what becomes of every component, and keep nothing.")
@click.option("--output", default=None, help="Write the document to this file (- is standard output) and keep nothing.")
@GATEWAY_OPTION
@in_loop
async def import_flow(file: str, name: str, gateway: str, *, explain: bool, output: str | None, **chosen: str | None) -> None:
    """Convert a flow that LangFlow exported, and keep it on the gateway. Its Python is never run."""
    convert = next(iter(entry_points(group="penstock.flow_importer"))).load()
    own_name, document, explanation = convert(Path(file).read_bytes(), **chosen)
    if explain:
        print(explanation)
    if output == "-":
        print(document)
    elif output is not None:
        Path(output).write_text(document, encoding="utf-8")
    if explain or output is not None:
        return
    async with Penstock(gateway, api_key=api_key()) as client:
        flow = await client.create_flow(name or own_name, document, replace=True)
    print(f"{flow.name} {flow.content_hash[:12]}")


@flow_commands.command(name="list")
@GATEWAY_OPTION
@in_loop
async def list_flows(gateway: str) -> None:
    """List the flows that the gateway keeps."""
    async with Penstock(gateway, api_key=api_key()) as client:
        async for flow in client.list_flows():
            inputs = ", ".join(f"{each.name}: {each.type}" for each in flow.inputs)
            print(f"{flow.name:<32} {flow.content_hash[:12]}  ({inputs}) -> {', '.join(flow.outputs)}")


@flow_commands.command()
@click.argument("name")
@click.option("--input", "-i", "pairs", multiple=True, metavar="NAME=VALUE", help="A text input; may be repeated.")
@click.option("--inputs", default="{}", help='All inputs as a JSON object, for values that are not text: {"n": 3}.')
@SESSION_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object instead of streaming it.")
@GATEWAY_OPTION
@in_loop
async def run(name: str, *, pairs: tuple[str, ...], inputs: str, session: str, as_json: bool, gateway: str) -> None:
    """Run a flow that the gateway keeps."""
    await _run(name, _inputs(pairs, inputs), session=session, as_json=as_json, gateway=gateway)


async def ask_flow(question: str, *, flow: str, session: str, as_json: bool, gateway: str) -> None:
    """Runs `flow` with `question` as its one required text input, or as the message of a flow that was a chat of LangFlow's."""
    async with Penstock(gateway, api_key=api_key()) as client:
        inputs = (await client.get_flow(flow)).inputs
    asked = [each for each in inputs if each.required] or [each for each in inputs if each.name == CHAT_INPUT]
    if len(asked) != 1:
        names = ", ".join(each.name for each in asked) or "none"
        message = f"flow {flow!r} has not one required input but {names}; use: penstock flow run {flow} -i NAME=VALUE"
        raise InvalidArgument(message)
    await _run(flow, {asked[0].name: question}, session=session, as_json=as_json, gateway=gateway)


async def _run(name: str, inputs: dict[str, Any], *, session: str, as_json: bool, gateway: str) -> None:
    async with Penstock(gateway, api_key=api_key()) as client:
        if as_json:
            print(json.dumps(asdict(await client.run(name, inputs, session=session)), ensure_ascii=False))
        else:
            await show_stream(client, name, inputs, Console(highlight=False), session=session)


async def show_stream(client: Penstock, name: str, inputs: dict[str, Any], console: Console, *, session: str = "") -> RunResult:
    """Runs a flow and prints its tokens as they come, then its sources. Outputs that no token told of are printed whole."""
    streamed = ""
    async for event in client.stream(name, inputs, session=session):
        match event:
            case Token(text=text):
                streamed += text
                console.print(text, end="", markup=False, soft_wrap=True)
            case Sources(sources=sources):
                console.print(f"[dim]found {len(sources)} passages[/]")
            case Done(result=result):
                console.print("\n" if streamed else "", end="")
                _print_outputs(console, result, streamed)
                return result
    raise InvalidFlow("the stream ended without its done event; look into the gateway's log")


def _print_outputs(console: Console, result: RunResult, streamed: str) -> None:
    for key, value in result.outputs.items():
        if not (isinstance(value, str) and value.strip() == streamed.strip()):
            console.print(f"[bold]{key}[/]: ", end="")
            console.print(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), markup=False)
    if result.sources:
        console.print("[bold]sources[/]")
        print_sources(console, result.sources)
    usage = result.usage
    console.print(f"[dim]{usage.input_tokens} tokens in, {usage.output_tokens} out, trace {result.trace_id}[/]")


def _inputs(pairs: tuple[str, ...], inputs: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(inputs)
        return values | dict(pair.split("=", 1) for pair in pairs)
    except (ValueError, TypeError) as error:
        message = f"inputs are NAME=VALUE after -i, or one JSON object after --inputs: {error}"
        raise InvalidArgument(message) from error
