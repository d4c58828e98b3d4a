"""The Skaha API of the embedded platform: the ASGI application and its endpoints."""
