"""The state of the embedded platform, without I/O."""
