"""The shared session list, and its users: waits, followed logs, live tables."""
