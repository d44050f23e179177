"""The generation service alone: python examples/generation_alone.py, with `penstock up --only generation` running."""

import asyncio

from penstock.clients import GenerationClient, LogprobOptions, Message, Sampling, StructuredOutput
from penstock.errors import UnsupportedFeature

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}, "country": {"type": "string", "maxLength": 30}},
    "required": ["city", "country"],
    "additionalProperties": False,
}
QUESTION = (Message(role="user", content="Name the capital of France."),)


async def main() -> None:
    async with GenerationClient("127.0.0.1:50052") as client:
        model = (await client.models())[0]
        print(f"{model.name} on {model.engine} can: {', '.join(model.features)}")
        sampling = Sampling(temperature=0.0, max_tokens=60)
        try:
            answer = await client.generate(
                QUESTION, sampling=sampling, structured_output=StructuredOutput(json_schema=SCHEMA), logprobs=LogprobOptions()
            )
        except UnsupportedFeature as error:  # What an engine lacks is refused by name, never ignored.
            print(error.message)
            answer = await client.generate(QUESTION, sampling=sampling)
        print(answer.text, answer.finish_reason, answer.usage)
        print(f"queued {answer.timings.queued_s:.3f} s, first token after {answer.timings.first_token_s:.3f} s")
        print(await client.load())


asyncio.run(main())
