"""The valid tokens in memory: they identify a caller without reading the database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as keyed_digest
from math import inf
from threading import Lock
from time import time

import structlog
from pydantic import SecretStr

from pacesetter_service.core.tokens import ADMIN, Token
from pacesetter_service.store import tokens as stored_tokens
from pacesetter_service.store.store import Store

log = structlog.get_logger("pacesetter.tokens")


def digest_of(secret: bytes) -> str:
    """Return the digest of a secret, which is all that is stored of it.

    It is a plain SHA-256. Slow hashes are for passwords, which can be guessed. A secret here has
    256 random bits, so it cannot be found from its digest, however fast hashing is.
    """
    return sha256(secret).hexdigest()


SEALING = b"pacesetter: seals of logins"
"""Separates the key of seals from any other key that may one day be derived from a token."""

NOTED_EVERY = 60.0
"""Seconds between two notes of a token's use: further uses in between are not noted."""


def written(moment: datetime) -> str:
    """Return a moment as it is stored and shown."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class _Key:
    """A token in the ring.

    Attributes:
        token: The token.
        until: When it expires, in seconds since the Unix epoch.
        noted_until: Until when a use of it is not noted again, likewise.
    """

    token: Token
    until: float
    noted_until: float = 0.0


class Keyring:
    """Who holds which token: all are in memory, so that a call does not read the database.

    Any thread may change it, and any may read it: readers see each change as atomic.

    Attributes:
        sealing: The key of seals; every process with the same own token has the same key.
    """

    def __init__(self, admin_secret: str, tokens: Iterable[Token] = ()) -> None:
        """Hold the service's own token, and the others.

        Args:
            admin_secret: The service's own token.
            tokens: The others, as the database has them.
        """
        self._admin = Token("", ADMIN, "admin", digest_of(admin_secret.encode()), "", None)
        self.sealing = keyed_digest(admin_secret.encode(), SEALING, "sha256")
        self._keys = {token.digest: _key(token) for token in tokens}
        self._uses: dict[str, str] = {}
        self._lock = Lock()
        self._changes = 0

    def holder(self, secret: bytes) -> Token | None:
        """Return the token of a secret, and note its use; None if unknown, revoked or expired."""
        digest = digest_of(secret)
        # How long this takes reveals something about digests, but nothing about their secrets.
        key = self._keys.get(digest)
        if key is not None:
            now = time()
            if now >= key.until:
                return None
            if now >= key.noted_until:
                self._note(key, now)
            return key.token
        return self._admin if compare_digest(digest, self._admin.digest) else None

    def holder_of(self, token_id: str) -> Token | None:
        """Return the token with this id, empty for the service's own, and note its use.

        Returns None if there is none, or if it was revoked or has expired.
        """
        if not token_id:
            return self._admin
        now = time()
        for key in self._keys.values():
            if key.token.id == token_id and now < key.until:
                if now >= key.noted_until:
                    self._note(key, now)
                return key.token
        return None

    def _note(self, key: _Key, now: float) -> None:
        key.noted_until = now + NOTED_EVERY
        moment = written(datetime.fromtimestamp(now, UTC))
        key.token = key.token._replace(last_used_at=moment)
        self._uses[key.token.id] = moment

    @property
    def has_uses(self) -> bool:
        """Whether uses were noted that have not been taken yet."""
        return bool(self._uses)

    def take_uses(self) -> dict[str, str]:
        """Take the uses noted since the last time: when tokens were used last, by id."""
        taken, self._uses = self._uses, {}
        return taken

    def put_back(self, uses: dict[str, str]) -> None:
        """Put back uses that were taken and could not be stored."""
        self._uses = {**uses, **self._uses}

    def tokens(self) -> list[Token]:
        """Return every token but the service's own, oldest first."""
        return [key.token for key in self._keys.values()]

    @property
    def changes(self) -> int:
        """How many changes of single tokens were made here."""
        return self._changes

    def add(self, token: Token) -> None:
        """Accept a token from now on."""
        with self._lock:
            self._changes += 1
            self._keys = {**self._keys, token.digest: _key(token)}

    def replace(self, tokens: Iterable[Token], since: int) -> bool:
        """Accept these tokens from now on, and no others, unless they are outdated.

        Args:
            tokens: The tokens, as they were read.
            since: `changes` before they were read. If there was a change since, what was read may
                be older than that, and would undo it.

        Returns:
            Whether they were accepted.
        """
        with self._lock:
            if self._changes != since:
                return False
            self._keys = {token.digest: _renewed(token, self._keys) for token in tokens}
            return True

    def remove(self, token_id: str) -> None:
        """Refuse a token from now on."""
        with self._lock:
            self._changes += 1
            keys = self._keys.items()
            self._keys = {digest: key for digest, key in keys if key.token.id != token_id}

    def suspend(self, token_id: str) -> None:
        """Refuse a token from now on, but list it: whether the database has it is not known."""
        with self._lock:
            self._changes += 1
            for key in self._keys.values():
                if key.token.id == token_id:
                    key.until = 0.0


def _key(token: Token) -> _Key:
    expires = token.expires_at
    return _Key(token, inf if expires is None else datetime.fromisoformat(expires).timestamp())


def _renewed(token: Token, keys: Mapping[str, _Key]) -> _Key:
    """Return the key of a token that was read again; uses that only memory knows are kept."""
    key, before = _key(token), keys.get(token.digest)
    if before is not None:
        key.noted_until = before.noted_until
        used = max(token.last_used_at or "", before.token.last_used_at or "")
        key.token = token._replace(last_used_at=used or None)
    return key


def read_tokens(store: Store) -> list[Token]:
    """Read the tokens of a database, except for those that were revoked."""
    with store.snapshot() as connection:
        return stored_tokens.read(connection)


def read_keyring(store: Store, admin_token: SecretStr | None) -> Keyring | None:
    """Return the keyring of a database; None while authentication is off."""
    known = read_tokens(store)
    if admin_token is not None:
        return Keyring(admin_token.get_secret_value(), known)
    if known:  # this service once required tokens
        advice = "authentication is off until PACESETTER_ADMIN_TOKEN is set"
        log.warning("tokens_not_asked_for", tokens=len(known), advice=advice)
    return None
