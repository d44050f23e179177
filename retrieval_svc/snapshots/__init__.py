"""Copies of shards outside this host: a folder or an object store that every node can read."""
