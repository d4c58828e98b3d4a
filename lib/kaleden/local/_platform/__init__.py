"""The state of the embedded platform, without input or output."""
