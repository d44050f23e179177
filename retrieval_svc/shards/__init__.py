"""The shards that a node holds: vectors, words, metadata and payloads of their rows, derived from the record's log."""
