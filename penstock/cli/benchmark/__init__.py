"""`penstock bench`: how fast a running service is, beside how well it finds."""
