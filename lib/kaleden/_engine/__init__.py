"""The engine: operations over many sessions, with limits, retries and time-outs."""
