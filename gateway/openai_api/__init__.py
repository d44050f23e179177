"""OpenAI's HTTP API in front of the gateway: chat completions, responses and models, a flow being a model.

    dialect (routes) -> chat | responses | models -> asking (a body read) -> running (the run, through the dispatcher)

A flow's text input is given the last user message, and the turns before it are the run's messages. The answer is the flow's
first text output that a model feeds. What OpenAI has no place for stands under "penstock", in requests and in answers.
"""
