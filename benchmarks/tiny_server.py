"""A small server that responds to each request for a session, at once or after a fixed delay.

``python -m benchmarks.tiny_server --delay 0.05`` prints the port that it listens on. It counts its
requests and connections. ``GET /count`` returns the counts and resets them. The server ends at the
end of its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import ssl
import sys
import time
from collections import deque

from benchmarks import payload

_END = b"\r\n\r\n"
_HEAD = "HTTP/1.1 {} \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A client's connection, with the bytes received and the bytes still to send."""

    __slots__ = ("blocked", "incoming", "open", "outgoing", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = b""
        self.outgoing = b""
        self.blocked = False
        self.open = True


class Server:
    """Respond to requests in the order of their arrival, each after *delay* seconds."""

    def __init__(self, delay: float, context: ssl.SSLContext | None) -> None:
        self.delay = delay
        self.context = context
        self.selector = selectors.DefaultSelector()
        self.due: deque[tuple[float, Connection, str]] = deque()
        self.requests = self.connections = self.max_waiting = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve until the standard input ends."""
        print(self.listener.getsockname()[1], flush=True)  # noqa: T201 - the parent process reads it
        while True:
            for key, events in self.selector.select(self._get_timeout()):
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self.listener:
                    self._accept()
                elif events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                else:
                    self._read(key.data)
            self._send_due()

    def _get_timeout(self) -> float | None:
        return max(0.0, self.due[0][0] - time.monotonic()) if self.due else None

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.context is not None:
                    sock = self.context.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
                self.connections += 1
                self.selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _read(self, connection: Connection) -> None:
        try:
            received = connection.sock.recv(65536)
        except _WAIT:
            return
        except OSError:
            received = b""
        if not received:
            self._close_connection(connection)
            return

        connection.incoming += received
        while _END in connection.incoming:
            head, connection.incoming = connection.incoming.split(_END, 1)
            self._handle_request(connection, head.decode("latin-1"))

    def _close_connection(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            self.selector.unregister(connection.sock)
            connection.sock.close()

    def _handle_request(self, connection: Connection, head: str) -> None:
        target = head.split(" ", 2)[1].partition("?")[0]
        if target == "/count":
            self._send(connection, _make_response(200, self._take_counts()))
            return

        self.requests += 1
        if self.delay == 0:
            self._send(connection, _make_session_response(target))
            return
        self.due.append((time.monotonic() + self.delay, connection, target))
        self.max_waiting = max(self.max_waiting, len(self.due))

    def _take_counts(self) -> str:
        counts = {
            "requests": self.requests,
            "connections": self.connections,
            "most": self.max_waiting,
            "waiting": len(self.due),
        }
        self.requests = self.connections = self.max_waiting = 0
        return json.dumps(counts)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, connection, target = self.due.popleft()
            if connection.open:
                self._send(connection, _make_session_response(target))

    def _send(self, connection: Connection, response: bytes) -> None:
        connection.outgoing += response
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.outgoing)
        except _WAIT:
            sent = 0
        except OSError:
            self._close_connection(connection)
            return
        connection.outgoing = connection.outgoing[sent:]
        blocked = bool(connection.outgoing)
        if blocked != connection.blocked:
            connection.blocked = blocked
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0)
            self.selector.modify(connection.sock, events, connection)


def _make_session_response(target: str) -> bytes:
    if not target.startswith(payload.PREFIX):
        return _make_response(404, "not found")
    return _make_response(200, payload.make_body(target.removeprefix(payload.PREFIX)))


def _make_response(status: int, body: str) -> bytes:
    return (_HEAD.format(status, len(body)) + body).encode("ascii")


def main() -> None:
    """Run the server with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_server")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until each response")
    parser.add_argument("--certificate", help="PEM file with a certificate and its key, for TLS")
    options = parser.parse_args()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    Server(options.delay, context).serve()


if __name__ == "__main__":
    main()
