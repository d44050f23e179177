"""The gateway: keeps flows, compiles them once, and runs them over the retrieval and generation services.

Reading order: flow_model (what a flow is), validation (from a document to a flow), nodes/ (what each node does), scheduler
(how a flow runs), compiler (what a run is), flows (which flow), servicer (how callers reach it).
"""
