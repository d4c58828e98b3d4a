"""The shared session list, and everything that polls it: waits, logs, live tables."""
