"""HTTP/1.1 connections: sockets, TLS, the pool, the request writer, the response parser."""
