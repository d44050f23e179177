"""Calls between Penstock's own services over one connection, at a third of what grpc.aio takes in Python.

    Link (client) ── frames over an upgraded HTTP/1.1 connection ── LinkServer ─> Dispatcher

The methods, their messages, metadata, deadlines and errors are gRPC's: a link is another way to the same dispatcher, and goes
through the same interceptors. It is found over gRPC and never needed: where there is none, calls go over gRPC.
"""
