"""Penstock's generation service: one port, three engines behind it, and what engines do not do in front of it.

    servicer -> generation (checks, admission, coalescing, spans) -> engine port <- openvino | vllm | openai

Read in this order: engine, generation, admission, coalescing, servicer, __main__; then the engine of your choice.
"""
