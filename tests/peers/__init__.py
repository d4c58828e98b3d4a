"""The other clients of the API, unmodified, on the embedded platform."""
