"""Searches: from a query to the hits that a caller gets."""
