"""A certificate authority for the embedded platform, and proxy certificates as CADC's users have.

A proxy certificate (RFC 3820) is issued by its user, not by an authority: its issuer is the
user's own certificate, and its subject is the user's with one more common name.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from kaleden._http import detect_truncation

# RFC 3820 §3.8: marks a proxy certificate that inherits all rights of its user.
_PROXY_CERT_INFO = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), bytes.fromhex("300c 300a 0608 2b06010505071501")
)
_PROXY_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class _AlertingConnection(ssl.SSLObject):
    """One end of a TLS connection that sends the alert when a handshake fails.

    When a handshake fails, anyio closes the connection before it sends the alert. So the failure is
    delayed: raising ``SSLWantReadError`` makes anyio send the pending data and then read. The
    failure is raised when the peer has closed the connection. Closing first could reset the
    connection and so lose the alert (RFC 9112 §9.6).
    """

    incoming: ssl.MemoryBIO
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            self.incoming.read()
            raise self._failure if self.incoming.eof else ssl.SSLWantReadError

        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as failure:
            self._failure = failure
            raise ssl.SSLWantReadError from failure

    def get_verified_chain(self) -> list[bytes]:
        """Return only the peer's own certificate, the one that anycorn uses."""
        certificate = self.getpeercert(binary_form=True)
        return [] if certificate is None else [certificate]

    # In Python 3.13, the original fails on a server if the client sent no certificate.
    get_unverified_chain = get_verified_chain


class _ServerContext(ssl.SSLContext):
    """An SSL context with connections that send alerts for failed handshakes."""

    sslobject_class = _AlertingConnection

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        connection = super().wrap_bio(incoming, *args, **kwargs)
        assert isinstance(connection, _AlertingConnection)  # noqa: S101 - set by sslobject_class
        connection.incoming = incoming
        return connection


@frozen
class _Identity:
    """A user's own certificate, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def from_leaf(cls, leaf: trustme.LeafCert) -> _Identity:
        key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - trustme's default
        return cls(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()), key)

    def make_proxy(self, begin: datetime, end: datetime) -> bytes:
        """Return a new proxy certificate as PEM, with its key and the user's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        user = self.certificate.subject
        name = x509.NameAttribute(NameOID.COMMON_NAME, str(serial % 10**10))
        proxy = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([*user.rdns, x509.RelativeDistinguishedName([name])]))
            .issuer_name(user)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(_PROXY_KEY_USAGE, critical=True)
            .add_extension(_PROXY_CERT_INFO, critical=True)
            .sign(self.key, SHA256())
        )
        return b"".join(
            (
                proxy.public_bytes(Encoding.PEM),
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                self.certificate.public_bytes(Encoding.PEM),
            )
        )


@define
class Authority:
    """The certificate authority that the platform and its clients trust. Its methods block.

    Its files are in *directory*. *hosts* are the names and addresses of the server.
    """

    directory: Path
    hosts: tuple[str, ...]
    ca_pem: Path = field(init=False)
    server_pem: Path = field(init=False)
    _ca: trustme.CA = field(init=False, factory=trustme.CA, repr=False)
    _identities: dict[str, _Identity] = field(init=False, factory=dict[str, _Identity], repr=False)

    def __attrs_post_init__(self) -> None:
        server = self._ca.issue_cert(*self.hosts)
        self.ca_pem = self.directory / "ca.pem"
        self.server_pem = self.directory / "server.pem"
        _write_atomically(self.ca_pem, self._ca.cert_pem.bytes())
        _write_atomically(self.server_pem, server.private_key_and_cert_chain_pem.bytes())

    def make_server_context(self) -> ssl.SSLContext:
        """Make the server's SSL context. A client may send a certificate, but need not."""
        context = detect_truncation(_ServerContext(ssl.PROTOCOL_TLS_SERVER))
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.server_pem)
        context.load_verify_locations(self.ca_pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags.VERIFY_ALLOW_PROXY_CERTS
        return context

    def make_client_context(self, certificate: Path | None) -> ssl.SSLContext:
        """Make a client's SSL context that trusts only this authority."""
        context = detect_truncation(ssl.create_default_context(cafile=self.ca_pem))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def issue_proxy(self, user: str, path: Path | None, begin: float, end: float) -> Path:
        """Write a proxy certificate of this user, valid from *begin* to *end*.

        Both are seconds since the epoch. Return the file.
        """
        if user not in self._identities:
            leaf = self._ca.issue_cert(f"{user}@localhost", common_name=user)
            self._identities[user] = _Identity.from_leaf(leaf)
        epoch = datetime.fromtimestamp(0, UTC)
        pem = self._identities[user].make_proxy(
            epoch + timedelta(seconds=begin), epoch + timedelta(seconds=end)
        )
        path = self.directory / f"{user}.pem" if path is None else path
        _write_atomically(path, pem)
        return path


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically, readable only by its owner."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(name, path)
