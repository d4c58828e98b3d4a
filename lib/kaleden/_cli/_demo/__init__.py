"""The demo: launch a dozen sessions, watch them, collect their results, clean up."""
