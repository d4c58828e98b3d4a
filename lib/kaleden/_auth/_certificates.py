"""X.509 proxy certificates: a file with the certificate, its private key, and its chain.

The file is read here only to check whether it is usable, and until when; OpenSSL reads the key.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from attrs import frozen

from kaleden._auth._environment import expand_home
from kaleden._auth._x509 import parse_validity
from kaleden._errors import ConfigurationError

logger = logging.getLogger("kaleden")

NEW_ONE: Final = "get a new one with `canfar login` or `cadc-get-cert`"
"""Advice in messages about a certificate that is not usable."""

_MAX_SIZE: Final = 2**20
"""Bytes of a file; a certificate, its key and its chain are some thousand."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)
_KEY = re.compile(rb"-----BEGIN ((?:RSA |EC |ENCRYPTED )?PRIVATE KEY)-----\s(.{0,40})", re.DOTALL)


@final
@frozen
class Certificate:
    """A usable certificate.

    Attributes:
        path: the file with the certificate and its key.
        begins: the start of its validity.
        expires: the end of its validity.
        stamp: a value that changes with the content of the file.
        open_to_others: whether others than its owner may read or change the file; always False if
            the system is not POSIX.
    """

    path: Path
    begins: datetime
    expires: datetime
    stamp: tuple[int, ...]
    open_to_others: bool = False

    def check_time(self) -> None:
        """Check that it is valid now.

        Raises:
            ConfigurationError: it is not valid.
        """
        now = datetime.now(UTC)
        if now >= self.expires:
            expired = f"the certificate {self.path} expired at {format_time(self.expires)}"
            raise ConfigurationError(f"{expired}: {NEW_ONE}")

        if now < self.begins:
            begins = f"the certificate {self.path} is not valid before {format_time(self.begins)}"
            raise ConfigurationError(f"{begins}: is this machine's clock right?")


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate and check that it is usable now.

    A file that others than its owner may read or change is used, with a warning in the log.

    Raises:
        ConfigurationError: it is not usable; the message says why, and what to do.
    """
    file = expand_home(path)
    status, content = _read(file)
    found = _CERTIFICATE.search(content)
    if found is None:
        raise ConfigurationError(f"there is no certificate in {file}: {NEW_ONE}")

    _check_key(file, content)
    begins, expires = _read_validity(file, found[0])
    certificate = Certificate(file, begins, expires, stamp_of(status), _is_open_to_others(status))
    certificate.check_time()
    if certificate.open_to_others:
        logger.warning(
            "others than its owner may read or change %s, which holds a private key: "
            "do `chmod 600 %s`",
            file,
            file,
        )
    return certificate


def read_current_expiry(certificate: Certificate) -> datetime:
    """Return the end of the validity of the certificate that the file has now.

    Raises:
        ConfigurationError: it is not usable.
    """
    try:
        is_unchanged = stamp_of(certificate.path.stat()) == certificate.stamp
    except OSError:
        is_unchanged = True  # It may be about to be replaced.
    return (certificate if is_unchanged else read_certificate(certificate.path)).expires


def format_time(time: datetime) -> str:
    """Return a time as text, in minutes."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return a value that changes with the content of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_open_to_others(status: os.stat_result) -> bool:
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _read(file: Path) -> tuple[os.stat_result, bytes]:
    try:
        if not file.is_file():
            problem = "is no file" if file.exists() else "does not exist"
            raise ConfigurationError(f"the certificate {file} {problem}: {NEW_ONE}")

        with file.open("rb") as opened:
            return os.fstat(opened.fileno()), opened.read(_MAX_SIZE)
    except OSError as error:
        msg = f"the certificate {file} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error


def _check_key(file: Path, content: bytes) -> None:
    key = _KEY.search(content)
    if key is None:
        msg = f"there is no private key in {file}: it belongs into the same file"
        raise ConfigurationError(msg)

    if key[1].startswith(b"ENCRYPTED") or b"ENCRYPTED" in key[2]:
        msg = f"the private key in {file} is protected by a password: store it without one"
        raise ConfigurationError(msg)


def _read_validity(file: Path, pem: bytes) -> tuple[datetime, datetime]:
    try:
        return parse_validity(ssl.PEM_cert_to_DER_cert(pem.decode("ascii")))
    except ValueError as error:
        raise ConfigurationError(f"the certificate in {file} is damaged: {NEW_ONE}") from error
