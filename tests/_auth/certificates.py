"""Proxy certificates of authorities of the tests' own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from attrs import field, frozen


@frozen
class Pem:
    """The content of a file as ``cadc-get-cert`` writes it.

    Attributes:
        certificate: the certificate and its chain.
        key: the private key.
    """

    certificate: str
    key: str

    def write(self, path: Path, content: str | None = None, mode: int = 0o600) -> Path:
        """Write it, or *content*, to *path*."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.certificate + self.key if content is None else content)
        path.chmod(mode)
        return path


@frozen
class Authority:
    """An authority that makes certificates."""

    ca: trustme.CA = field(factory=trustme.CA)

    def issue(self, *, begins: float = -3600, expires: float = 3600) -> Pem:
        """Make a certificate that is valid from and to so many seconds from now."""
        now = datetime.now(UTC)
        leaf = self.ca.issue_cert(
            "ada@example.org",
            not_before=now + timedelta(seconds=begins),
            not_after=now + timedelta(seconds=expires),
        )
        chain = "".join(pem.bytes().decode() for pem in leaf.cert_chain_pems)
        return Pem(chain, leaf.private_key_pem.bytes().decode())
