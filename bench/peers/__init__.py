"""Other ways to serve the same search, each in an environment of its own, driven by its own best client.

    peers_part -> environments (install, start) -> worker (in the environment) -> one adapter a peer

The adapters and the worker run in the peer's environment: they import its client, bench.closed_loop and nothing of Penstock.
"""
