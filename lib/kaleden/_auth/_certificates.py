"""X.509 proxy certificates: a file with the certificate, its private key, and its chain.

The file is read here only to tell whether it can be used, and until when; the key is left to
OpenSSL.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, final

from attrs import frozen

from kaleden._auth._environment import expanded
from kaleden._errors import ConfigurationError

logger = logging.getLogger("kaleden")

NEW_ONE: Final = "get a new one with `canfar login` or `cadc-get-cert`"
"""What to do about a certificate that cannot be used."""

_MAX_SIZE: Final = 2**20
"""Bytes of a file; a certificate, its key and its chain are some thousand."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)
_KEY = re.compile(rb"-----BEGIN ((?:RSA |EC |ENCRYPTED )?PRIVATE KEY)-----\s(.{0,40})", re.DOTALL)


@final
@frozen
class Certificate:
    """A certificate that can be used.

    Attributes:
        path: where it is, with its key.
        begins: from when it is valid.
        expires: until when it is valid.
        stamp: tells one content of the file from another.
        open_to_others: whether others than its owner may read or change the file; not known but on
            POSIX.
    """

    path: Path
    begins: datetime
    expires: datetime
    stamp: tuple[int, ...]
    open_to_others: bool = False

    def check_time(self, now: datetime | None = None) -> None:
        """Make sure that it is valid now.

        Args:
            now: the present, aware; the clock's by default.

        Raises:
            ConfigurationError: it is not.
        """
        moment = now or datetime.now(UTC)
        if moment >= self.expires:
            expired = f"the certificate {self.path} expired at {told_time(self.expires)}"
            raise ConfigurationError(f"{expired}: {NEW_ONE}")

        if moment < self.begins:
            begins = f"the certificate {self.path} is not valid before {told_time(self.begins)}"
            raise ConfigurationError(f"{begins}: is this machine's clock right?")


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate and make sure that it can be used now.

    A file that others than its owner may read or change is used, with a warning in the log.

    Raises:
        ConfigurationError: it cannot; the message says why, and what to do.
    """
    place = expanded(path)
    status, content = _read(place)
    found = _CERTIFICATE.search(content)
    if found is None:
        raise ConfigurationError(f"there is no certificate in {place}: {NEW_ONE}")

    _check_key(place, content)
    begins, expires = _validity(place, found[0])
    certificate = Certificate(place, begins, expires, _stamp(status), _is_open_to_others(status))
    certificate.check_time()
    if certificate.open_to_others:
        logger.warning(
            "others than its owner may read or change %s, which holds a private key: "
            "do `chmod 600 %s`",
            place,
            place,
        )
    return certificate


def stamp_of(path: Path) -> tuple[int, ...]:
    """Tell one content of a file from another, without reading it.

    Raises:
        OSError: there is no such file now.
    """
    return _stamp(path.stat())


def told_time(moment: datetime) -> str:
    """Write a moment for people."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_open_to_others(status: os.stat_result) -> bool:
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _read(place: Path) -> tuple[os.stat_result, bytes]:
    try:
        if not place.is_file():
            problem = "is no file" if place.exists() else "does not exist"
            raise ConfigurationError(f"the certificate {place} {problem}: {NEW_ONE}")

        with place.open("rb") as file:
            return os.fstat(file.fileno()), file.read(_MAX_SIZE)
    except OSError as error:
        msg = f"the certificate {place} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error


def _check_key(place: Path, content: bytes) -> None:
    key = _KEY.search(content)
    if key is None:
        msg = f"there is no private key in {place}: it belongs into the same file"
        raise ConfigurationError(msg)

    if key[1].startswith(b"ENCRYPTED") or b"ENCRYPTED" in key[2]:
        msg = f"the private key in {place} is protected by a password, which nobody is asked for"
        raise ConfigurationError(msg)


def _validity(place: Path, pem: bytes) -> tuple[datetime, datetime]:
    # Only who has a certificate needs it; it has no type stubs.
    x509: Any = import_module("asn1crypto.x509")
    try:
        parsed = x509.Certificate.load(ssl.PEM_cert_to_DER_cert(pem.decode("ascii")))
        begins, expires = parsed.not_valid_before, parsed.not_valid_after
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ConfigurationError(f"the certificate in {place} is damaged: {NEW_ONE}") from error

    return begins, expires
