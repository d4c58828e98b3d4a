"""`AsyncSession`: the public methods, and the lifetime of a client."""
