"""The TLS context of a session.

To make one takes tens of milliseconds, most of them for the certificate authorities, so it is made
in a thread, once, and again when the file of the client's certificate has changed.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import final

import anyio
from anyio import to_thread

from kaleden._auth._certificates import Certificate, read_certificate, stamp_of
from kaleden._errors import ConfigurationError, FailureKind
from kaleden._http import TransportError, detect_truncation

logger = logging.getLogger("kaleden")


@final
class OwnTls:
    """A context of kaleden's own, with the client's certificate if there is one.

    A file that was replaced is read again. If its content is not usable, the previous certificate
    is used for as long as it is valid.

    Args:
        certificate: the client's certificate; None for none.
    """

    def __init__(self, certificate: Certificate | None) -> None:
        self._certificate = certificate
        self._context: ssl.SSLContext | None = None
        self._passed_over: tuple[int, ...] | None = None
        self._lock = anyio.Lock()

    async def prepare(self) -> ssl.SSLContext:
        """Return the context, which the first call makes.

        Raises:
            ConfigurationError: the certificate or the authorities are not usable.
        """
        path = None
        if self._certificate is not None:
            # It may have been renewed since it was found.
            path = self._certificate.path
            await self._reload_if_changed(path)
            self._certificate.check_time()
        if self._context is None:
            async with self._lock:
                if self._context is None:
                    self._context = await to_thread.run_sync(make_context, path)
        return self._context

    async def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; see `Tls.context`."""
        try:
            return await self.prepare()
        except ConfigurationError as error:
            raise TransportError(FailureKind.NOT_AUTHENTICATED, str(error), sent=False) from error

    async def _reload_if_changed(self, path: Path) -> None:
        """Read the file again if it has changed."""
        if self._changed_stamp(path) is None:
            return

        async with self._lock:
            stamp = self._changed_stamp(path)
            if stamp is None:
                return

            self._passed_over = stamp
            try:
                certificate = await to_thread.run_sync(read_certificate, path)
                context = await to_thread.run_sync(make_context, path)
            except ConfigurationError as error:
                logger.warning("%s; the previous certificate stays in use", error)
            else:
                self._certificate, self._context = certificate, context

    def _changed_stamp(self, path: Path) -> tuple[int, ...] | None:
        try:
            stamp = stamp_of(path.stat())
        except OSError:
            return None  # It may be about to be replaced; the loaded certificate stays in use.

        known = None if self._certificate is None else self._certificate.stamp
        return None if stamp in {known, self._passed_over} else stamp


def make_context(certificate: Path | None) -> ssl.SSLContext:
    """Return a context for a client, with the authorities of ``SSL_CERT_FILE``, ``SSL_CERT_DIR``.

    If neither is set, they are Mozilla's, as for httpx.

    Args:
        certificate: the file with the client's certificate and key; None for none.

    Raises:
        ConfigurationError: a file is not usable.
    """
    context = detect_truncation(_load_authorities())
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        try:
            # Without this function OpenSSL would ask for a password at the terminal.
            context.load_cert_chain(certificate, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            msg = f"the certificate and key in {certificate} cannot be used: {_reason(error)}"
            raise ConfigurationError(msg) from error

    return context


def _load_authorities() -> ssl.SSLContext:
    import certifi  # noqa: PLC0415 - slow to load, and this is a thread

    file = os.environ.get("SSL_CERT_FILE") or None
    folder = os.environ.get("SSL_CERT_DIR") or None
    try:
        if file is None and folder is None:
            return ssl.create_default_context(cafile=certifi.where())

        return ssl.create_default_context(cafile=file, capath=folder)
    except OSError as error:
        msg = f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {_reason(error)}"
        raise ConfigurationError(msg) from error


def _reason(error: Exception) -> str:
    """Return the reason that OpenSSL or the system gives."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()

    return getattr(error, "strerror", None) or type(error).__name__
