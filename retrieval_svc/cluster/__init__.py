"""Many nodes as one service: which node holds which shard, and asking them together."""
