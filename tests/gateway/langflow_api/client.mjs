// What a program written for LangFlow does with its published client: a run, a stream, tweaks, a session, a failure.
import { LangflowClient } from "@datastax/langflow-client";

const [baseUrl, apiKey, flowId] = process.argv.slice(2);
const flow = new LangflowClient({ baseUrl, apiKey }).flow(flowId);

const run = await flow.run("hi there", { session_id: "js" });
const tweaked = await flow.tweak("Prompt Template", { template: "Say: {question}" }).run("hi");

const events = [];
for await (const event of await flow.stream("hi there", { session_id: "js" })) {
  events.push(event);
}

let failure = "";
try {
  await new LangflowClient({ baseUrl, apiKey: "wrong" }).flow(flowId).run("hi");
} catch (error) {
  failure = error.message;
}

console.log(
  JSON.stringify({
    text: run.chatOutputText(),
    session: run.sessionId,
    tweaked: tweaked.chatOutputText(),
    kinds: events.map((event) => event.event),
    tokens: events.filter((event) => event.event === "token").map((event) => event.data.chunk).join(""),
    end: events.at(-1).data.result.outputs[0].outputs[0].outputs.message.message,
    failure,
  }),
);
