"""HTTP for gRPC methods, driven by their descriptors: an ASGI app, and the OpenAPI document of what it serves."""

from penstock.transcoding.app import Transcoder
from penstock.transcoding.openapi import openapi

__all__ = ["Transcoder", "openapi"]
