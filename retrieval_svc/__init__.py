"""The retrieval service: chunks of text and their vectors, stored durably in SQL, found through FAISS.

Reading order: values -> servicer -> search and ingest (the core, with its ports) -> catalog -> embedding and indexing (the two
threads) -> the adapters embedder, index and store -> __main__, which puts them together.
"""
