"""Another HTTP API in front of the same methods."""

import asyncio

from penstock import errors
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectRoute


class Plain:
    """POST /plain/{flow} runs a flow and answers with its first output; what fails is a line of text."""

    async def run(self, call):
        request = flow_pb2.RunFlowRequest(name=f"flows/{call.parts[0]}", inputs=call.json() or {})
        response = await call.unary("/penstock.flow.v1.RunService/RunFlow", request)
        await call.answer(200, {"said": dict(response.outputs), "query": call.query})

    async def fail(self, exchange, error):
        await exchange.answer(error.code.http_status, error.message.encode(), content_type=b"text/plain")

    def find(self, http_method, path):
        if http_method == "POST" and path.startswith("/plain/"):
            return DialectRoute(handler=self.run, fail=self.fail, parts=(path.removeprefix("/plain/"),))
        return None

    def describe(self):
        return {"paths": {"/plain/{flow}": {"post": {"responses": {"200": {"description": "What it said."}}}}}}


async def test_a_dialect_calls_the_methods_and_answers_in_its_own_words(client, dispatcher):
    dispatcher.dialects.append(Plain())
    dispatcher.answers["RunFlow"] = flow_pb2.RunFlowResponse(outputs={"answer": "Oslo"})
    answer = await client.call("POST", "/plain/rag?a=1", {"question": "x"})
    assert (answer.status, answer.json) == (200, {"said": {"answer": "Oslo"}, "query": {"a": "1"}})
    assert dispatcher.request.name == "flows/rag"


async def test_what_fails_is_worded_by_the_dialect(client, dispatcher):
    dispatcher.dialects.append(Plain())
    dispatcher.answers["RunFlow"] = errors.FlowNotFound("no such flow")
    answer = await client.call("POST", "/plain/rag", {})
    assert (answer.status, answer.body) == (404, b"no such flow")
    answer = await client.call("POST", "/plain/rag", b"{")
    assert (answer.status, answer.headers["content-type"]) == (400, "text/plain")
    answer = await client.call("POST", "/plain/rag", b"x" * 200_000)
    assert answer.status == 413
    dispatcher.answers["RunFlow"] = ZeroDivisionError("secret")
    answer = await client.call("POST", "/plain/rag", {})
    assert (answer.status, b"secret" in answer.body) == (500, False)


async def test_paths_of_the_protos_are_served_as_before_and_described_beside(client, dispatcher):
    dispatcher.dialects.append(Plain())
    dispatcher.answers["RunFlow"] = flow_pb2.RunFlowResponse(trace_id="t")
    assert (await client.call("POST", "/v1/flows/rag:run", {})).json["trace_id"] == "t"
    described = (await client.call("GET", "/openapi.json")).json["paths"]
    assert {"/plain/{flow}", "/v1/flows/{flow}:run"} <= described.keys()


async def test_a_client_that_leaves_ends_the_work(client, dispatcher):
    dispatcher.dialects.append(Plain())
    cancelled = asyncio.Event()

    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    dispatcher.answers["RunFlow"] = lambda _: work()
    call = asyncio.create_task(client.call("POST", "/plain/rag", {}))
    await asyncio.sleep(0.01)
    client.left.set()
    await asyncio.wait_for(cancelled.wait(), 5)
    call.cancel()
