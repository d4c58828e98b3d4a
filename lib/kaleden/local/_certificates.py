"""A certificate authority for the embedded platform, and proxy certificates as CADC's users have.

A proxy certificate (RFC 3820) is made by its user, not by an authority: its issuer is the user's
own certificate, and its subject is the user's with one more common name.
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

# RFC 3820 §3.8: that it is a proxy certificate, and that it may do all that its user may.
_PROXY = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"),
    bytes.fromhex("300c 300a 0608 2b06010505071501"),
)
_SIGNS = x509.KeyUsage(
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


class _Connection(ssl.SSLObject):
    """One end of a TLS connection, which tells the other why the handshake failed.

    anyio closes a connection whose handshake failed with the alert still unsent. So the failure is
    put off, by asking for more to read (what is unsent is sent before that), until the other end
    has closed: closing first could cost it the alert (RFC 9112 §9.6).
    """

    incoming: ssl.MemoryBIO
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is None:
            self._shake_hands()
        else:
            self.incoming.read()
            if self.incoming.eof:
                raise self._failure
            raise ssl.SSLWantReadError

    def get_verified_chain(self) -> list[bytes]:
        """Give the other end's certificate, as anycorn asks for it; the rest serves nobody."""
        certificate = self.getpeercert(binary_form=True)
        return [] if certificate is None else [certificate]

    # Python 3.13's own stumbles at a server over a client that showed no certificate.
    get_unverified_chain = get_verified_chain

    def _shake_hands(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as failure:
            self._failure = failure
            raise ssl.SSLWantReadError from failure


class _ServerContext(ssl.SSLContext):
    """A context whose connections send their alerts."""

    sslobject_class = _Connection

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        connection = super().wrap_bio(incoming, *args, **kwargs)
        assert isinstance(connection, _Connection)  # noqa: S101 - made by the class above
        connection.incoming = incoming
        return connection


@frozen
class _Identity:
    """A user's own certificate, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, leaf: trustme.LeafCert) -> _Identity:
        key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - trustme's default
        return cls(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()), key)

    def proxy(self, begin: datetime, end: datetime) -> bytes:
        """Make a proxy certificate; give it as PEM, with its key and the user's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        user = self.certificate.subject
        proxy = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([*user.rdns, _common_name(serial)]))
            .issuer_name(user)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(_SIGNS, critical=True)
            .add_extension(_PROXY, critical=True)
            .sign(self.key, SHA256())
        )
        return b"".join(
            (
                proxy.public_bytes(Encoding.PEM),
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                self.certificate.public_bytes(Encoding.PEM),
            )
        )


def _common_name(serial: int) -> x509.RelativeDistinguishedName:
    name = x509.NameAttribute(NameOID.COMMON_NAME, str(serial % 10**10))
    return x509.RelativeDistinguishedName([name])


@define
class Authority:
    """The authority that both ends of the platform's connections trust. Its methods block.

    Args:
        directory: where its files are put.
        hosts: the names and addresses of the server.
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
        _write(self.ca_pem, self._ca.cert_pem.bytes())
        _write(self.server_pem, server.private_key_and_cert_chain_pem.bytes())

    def server_context(self) -> ssl.SSLContext:
        """Make the server's context: who has a certificate of a user may show it."""
        context = detect_truncation(_ServerContext(ssl.PROTOCOL_TLS_SERVER))
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.server_pem)
        context.load_verify_locations(self.ca_pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags.VERIFY_ALLOW_PROXY_CERTS
        return context

    def client_context(self, certificate: Path | None) -> ssl.SSLContext:
        """Make a context for a client, which trusts nobody but this authority."""
        context = detect_truncation(ssl.create_default_context(cafile=self.ca_pem))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def issue(self, user: str, path: Path | None, begin: float, end: float) -> Path:
        """Write a proxy certificate of this user, valid between two times since the epoch."""
        if user not in self._identities:
            leaf = self._ca.issue_cert(f"{user}@localhost", common_name=user)
            self._identities[user] = _Identity.of(leaf)
        epoch = datetime.fromtimestamp(0, UTC)
        pem = self._identities[user].proxy(
            epoch + timedelta(seconds=begin), epoch + timedelta(seconds=end)
        )
        path = self.directory / f"{user}.pem" if path is None else path
        _write(path, pem)
        return path


def _write(path: Path, content: bytes) -> None:
    """Put a file there at once, so that nobody reads half of it; only its owner can read it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(name, path)
