"""Flows as tools of the Model Context Protocol: /mcp on the gateway, streamable HTTP without sessions.

    dialect (the route, who may call) -> server (the only importer of mcp) -> tools (flows as tools, through the dispatcher)

mcp takes a second to import, which no gateway pays that nobody asks for tools.
"""
