"""The record: collections, documents, chunks and the ordered log of their changes, in SQL."""
