"""LangFlow's HTTP API on the gateway: its paths, its bodies, its words, and none of its machinery.

    dialect -> runs, streams, workflows, responses, history, keeping -> calls -> the service's dispatcher
                       |
                       face (a flow as a client of LangFlow sees it) -> messages (JSON made of pieces that are ready)

Every run goes through RunFlow or StreamFlow, as one over gRPC does: keys, limits, deadlines and traces are the same. What a
client may rely on is LangFlow 1.13's; where it answers otherwise, the module says so and why.
"""
