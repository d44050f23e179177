"""HTTP for gRPC methods, driven by their descriptors: an ASGI app, and the OpenAPI document of what it serves."""

from penstock.transcoding.app import Page, Transcoder
from penstock.transcoding.openapi import openapi

__all__ = ["Page", "Transcoder", "openapi"]
