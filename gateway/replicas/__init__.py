"""Several generation replicas as if they were one: which of them answers a request, and what happens when one goes.

    generator -> attempts -> pool (prefixes, loads) -> a replica's node

`watching` keeps the pool current: who is there, who is ready, who works on how much.
"""
