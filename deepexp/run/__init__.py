"""A run and its directory: what it is called, what it writes about itself, how it is resumed."""
