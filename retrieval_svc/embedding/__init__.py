"""Texts to vectors: models, their backends, batching across requests."""
