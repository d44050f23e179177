"""Databases of others, which flows read: who they are, and how each kind of them is kept from being changed."""
