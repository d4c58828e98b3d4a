"""Users and their tokens, with a clock that the test advances."""

from __future__ import annotations

import math
import re

import pytest
from attrs import define, field

from kaleden.local import HTTPError
from kaleden.local._accounts import Accounts
from local.serving import Clock


@define
class Authenticator:
    """Accounts with two users, and a clock."""

    clock: Clock = field(factory=Clock)
    accounts: Accounts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.accounts = Accounts(self.clock)
        self.accounts.add("ada")
        self.accounts.add("eve", authorized=False)

    def identify(self, authorization: str | None = None, subject: str | None = None) -> object:
        """Return the user, or the status if authentication fails."""
        try:
            return self.accounts.identify(authorization, subject)
        except HTTPError as error:
            return error.status


@pytest.fixture
def auth() -> Authenticator:
    return Authenticator()


def test_request_without_credentials_is_anonymous(auth: Authenticator) -> None:
    assert auth.identify() is None
    assert auth.identify("") is None


def test_token_is_valid_until_revoked(auth: Authenticator) -> None:
    old, new = auth.accounts.issue_token("ada"), auth.accounts.issue_token("ada")
    assert ["ada", "ada"] == [auth.identify(f"Bearer {token}") for token in (old, new)]
    auth.accounts.revoke_token(old)
    assert [401, "ada"] == [auth.identify(f"Bearer {token}") for token in (old, new)]


def test_token_is_safe_as_command_line_argument(auth: Authenticator) -> None:
    """`--token` does not accept a value that begins with a hyphen."""
    assert re.fullmatch("[0-9a-f]{48}", auth.accounts.issue_token("ada"))


def test_token_expires_by_clock(auth: Authenticator) -> None:
    token = auth.accounts.issue_token("ada", 60)
    auth.clock.now += 59
    assert "ada" == auth.identify(f"Bearer {token}")
    auth.clock.now += 1
    assert 401 == auth.identify(f"Bearer {token}")


def test_unauthorized_user_gets_403_with_server_text(auth: Authenticator) -> None:
    token = auth.accounts.issue_token("eve", math.inf)
    with pytest.raises(HTTPError, match="Not authorized to use the skaha system") as caught:
        auth.accounts.identify(f"Bearer {token}", None)
    assert 403 == caught.value.status
    assert 403 == auth.identify(None, "CN=eve")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("CN=ada,OU=people,O=here", "ada"),
        ("CN=99,CN=ada,OU=people", "ada"),
        ("CN=7,CN=99,CN=ada", "ada"),
        ("CN=bob", 403),
        ("CN=ada,CN=bob", 403),
        ("OU=ada", 403),
        ("", 403),
    ],
)
def test_certificate_user_is_last_common_name(
    auth: Authenticator, subject: str, expected: object
) -> None:
    assert expected == auth.identify(None, subject)


def test_token_takes_precedence_over_certificate(auth: Authenticator) -> None:
    assert 401 == auth.identify("Bearer unknown", "CN=ada")


def test_user_can_be_barred_and_readmitted(auth: Authenticator) -> None:
    token = auth.accounts.issue_token("ada")
    auth.accounts.add("ada", authorized=False)
    assert 403 == auth.identify(f"Bearer {token}")
    auth.accounts.add("ada")
    assert "ada" == auth.identify(f"Bearer {token}")


@pytest.mark.parametrize("name", ["", "a b", "a,CN=b", "-a", "a/b", "x" * 33])
def test_user_name_allows_letters_digits_and_dashes(auth: Authenticator, name: str) -> None:
    with pytest.raises(ValueError, match="name is letters"):
        auth.accounts.add(name)


def test_unknown_user_or_token_raises(auth: Authenticator) -> None:
    with pytest.raises(ValueError, match="add_user"):
        auth.accounts.issue_token("bob")
    with pytest.raises(ValueError, match="nothing to revoke"):
        auth.accounts.revoke_token("unknown")


def test_token_is_not_in_repr(auth: Authenticator) -> None:
    auth.accounts.accept_token("s3cret-token", "ada")
    assert "s3cret" not in repr(auth.accounts)
