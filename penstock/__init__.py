"""Penstock: a production runtime for retrieval-augmented generation.

This package is what the three services share: the generated contract (`penstock.{flow,retrieval,generation}.v1`) and the
runtime under it (errors, settings, telemetry, server, channel, transcoding), with the command line and the published clients.
"""

__version__ = "0.1.0"
