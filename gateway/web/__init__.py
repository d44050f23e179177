"""HTTP servers of others, which flows ask: which may be asked, at which addresses, and how."""
