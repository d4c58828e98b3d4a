"""Users and their tokens, by a clock that is set by hand."""

from __future__ import annotations

import math
import re

import pytest
from attrs import define, field

from kaleden.local import HTTPError
from kaleden.local._accounts import Accounts
from local.worlds import Clock


@define
class Door:
    """Accounts, and who comes through."""

    clock: Clock = field(factory=Clock)
    accounts: Accounts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.accounts = Accounts(self.clock)
        self.accounts.add("ada")
        self.accounts.add("eve", authorized=False)

    def knock(self, authorization: str | None = None, subject: str | None = None) -> object:
        """Say who came in, or with which status it was refused."""
        try:
            return self.accounts.identify(authorization, subject)
        except HTTPError as refused:
            return refused.status


@pytest.fixture
def door() -> Door:
    return Door()


def test_who_shows_nothing_is_nobody(door: Door) -> None:
    assert door.knock() is None
    assert door.knock("") is None


def test_a_token_is_its_users_until_it_is_revoked(door: Door) -> None:
    old, new = door.accounts.issue_token("ada"), door.accounts.issue_token("ada")
    assert ["ada", "ada"] == [door.knock(f"Bearer {token}") for token in (old, new)]
    door.accounts.revoke_token(old)
    assert [401, "ada"] == [door.knock(f"Bearer {token}") for token in (old, new)]


def test_a_token_is_one_word_of_a_command_line(door: Door) -> None:
    """`--token` would take none that begins with a hyphen."""
    assert re.fullmatch("[0-9a-f]{48}", door.accounts.issue_token("ada"))


def test_a_token_expires_by_the_clock(door: Door) -> None:
    token = door.accounts.issue_token("ada", 60)
    door.clock.now += 59
    assert "ada" == door.knock(f"Bearer {token}")
    door.clock.now += 1
    assert 401 == door.knock(f"Bearer {token}")


def test_who_is_not_admitted_is_forbidden_with_the_servers_text(door: Door) -> None:
    token = door.accounts.issue_token("eve", math.inf)
    with pytest.raises(HTTPError, match="Not authorized to use the skaha system") as caught:
        door.accounts.identify(f"Bearer {token}", None)
    assert 403 == caught.value.status
    assert 403 == door.knock(None, "CN=eve")


@pytest.mark.parametrize(
    ("subject", "who"),
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
def test_a_certificate_is_of_whom_its_first_common_name_says(
    door: Door, subject: str, who: object
) -> None:
    assert who == door.knock(None, subject)


def test_a_token_counts_before_a_certificate(door: Door) -> None:
    assert 401 == door.knock("Bearer unknown", "CN=ada")


def test_a_user_can_be_barred_and_admitted_again(door: Door) -> None:
    token = door.accounts.issue_token("ada")
    door.accounts.add("ada", authorized=False)
    assert 403 == door.knock(f"Bearer {token}")
    door.accounts.add("ada")
    assert "ada" == door.knock(f"Bearer {token}")


@pytest.mark.parametrize("name", ["", "a b", "a,CN=b", "-a", "a/b", "x" * 33])
def test_a_name_is_letters_digits_and_dashes(door: Door, name: str) -> None:
    with pytest.raises(ValueError, match="name is letters"):
        door.accounts.add(name)


def test_mistakes_are_told(door: Door) -> None:
    with pytest.raises(ValueError, match="add_user"):
        door.accounts.issue_token("bob")
    with pytest.raises(ValueError, match="nothing to revoke"):
        door.accounts.revoke_token("unknown")


def test_no_token_is_kept_or_shown(door: Door) -> None:
    door.accounts.accept_token("s3cret-token", "ada")
    assert "s3cret" not in repr(door.accounts)
