"""How one version's tables become the next's. A revision that was released never changes; there is no way back but a backup."""
