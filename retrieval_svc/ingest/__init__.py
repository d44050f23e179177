"""Writes: documents to chunks, chunks to the record."""
