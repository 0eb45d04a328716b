"""The ring of tokens that are valid, in memory: who calls, without a look at the database."""

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from math import inf
from time import time
from typing import NamedTuple

import structlog
from pydantic import SecretStr

from pacesetter_service.core.tokens import ADMIN, Token
from pacesetter_service.store import tokens as stored_tokens
from pacesetter_service.store.store import Store

log = structlog.get_logger("pacesetter.tokens")


def digest_of(secret: bytes) -> str:
    """Return what is kept of a secret.

    A plain SHA-256: the slow hashes are for passwords, which can be guessed. A secret here has 256
    random bits, so that it cannot be found from its digest however fast hashing is.
    """
    return sha256(secret).hexdigest()


class _Key(NamedTuple):
    token: Token
    until: float
    """Seconds since the epoch."""


class Keyring:
    """Who holds which token: all of them in memory, so that a call costs no look at the database.

    One thread changes it, any may read it: each change is one step for who reads.
    """

    def __init__(self, admin_secret: str, tokens: Iterable[Token] = ()) -> None:
        """Keep the service's own token, and those that were made with it.

        Args:
            admin_secret: The service's own token.
            tokens: The others, as the database has them.
        """
        self._admin = Token("", ADMIN, "admin", digest_of(admin_secret.encode()), "", None)
        self._keys = {token.digest: _key(token) for token in tokens}

    def holder(self, secret: bytes) -> Token | None:
        """Return whose secret this is; None if it is unknown, revoked or expired."""
        digest = digest_of(secret)
        # How long this takes says something of digests, and nothing of a secret that has them.
        key = self._keys.get(digest)
        if key is not None:
            return key.token if time() < key.until else None
        return self._admin if compare_digest(digest, self._admin.digest) else None

    def tokens(self) -> list[Token]:
        """Return every token but the service's own, the oldest first."""
        return [key.token for key in self._keys.values()]

    def add(self, token: Token) -> None:
        """Accept a token from now on."""
        self._keys = {**self._keys, token.digest: _key(token)}

    def replace(self, tokens: Iterable[Token]) -> None:
        """Accept these tokens from now on, and no others."""
        self._keys = {token.digest: _key(token) for token in tokens}

    def remove(self, token_id: str) -> None:
        """Refuse a token from now on."""
        keys = self._keys.items()
        self._keys = {digest: key for digest, key in keys if key.token.id != token_id}


def _key(token: Token) -> _Key:
    expires = token.expires_at
    return _Key(token, inf if expires is None else datetime.fromisoformat(expires).timestamp())


def read_tokens(store: Store) -> list[Token]:
    """Read the tokens that a database knows, but for those that have been revoked."""
    with store.snapshot() as connection:
        return stored_tokens.read(connection)


def read_keyring(store: Store, admin_token: SecretStr | None) -> Keyring | None:
    """Return the tokens that a database knows; None while authentication is off."""
    known = read_tokens(store)
    if admin_token is not None:
        return Keyring(admin_token.get_secret_value(), known)
    if known:  # this service was guarded, once
        advice = "authentication is off until PACESETTER_ADMIN_TOKEN is set"
        log.warning("tokens_not_asked_for", tokens=len(known), advice=advice)
    return None
