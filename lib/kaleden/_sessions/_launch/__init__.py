"""Create and delete requests: the launch protocol and verified destroys."""
