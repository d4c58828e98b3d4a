"""The platform in memory, and `MemoryTransport`."""
