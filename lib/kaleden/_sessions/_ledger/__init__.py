"""The durable record of launches, and the identity of processes."""
