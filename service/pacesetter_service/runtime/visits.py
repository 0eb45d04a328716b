"""Logins of browsers: a signed statement that a token was shown, which any process can check.

A browser keeps the statement instead of the token. The statement holds the id of the token, the
time when it expires, and a seal, which is made with a key derived from the service's own token. So
every process that was started with that token can check it, and no login is stored. Revoking a
token ends its logins immediately, and changing the service's own token ends all logins.
"""

import hmac
import re
import secrets
from hashlib import sha256
from time import time

from pacesetter_service.core.tokens import Token
from pacesetter_service.runtime.keyring import Keyring

HOURS = 12
"""How many hours a login is valid."""

LONGEST = 200
"""The longest statement that is read, in characters."""

_STATEMENT = re.compile(r"([0-9a-f]*)\.([0-9]{1,12})\.([A-Za-z0-9_-]{16})\.([0-9a-f]{64})")


def begin(keys: Keyring, token: Token) -> str:
    """Return the statement of a login with a token, in characters that a cookie allows."""
    said = f"{token.id}.{int(time()) + HOURS * 3600}.{secrets.token_urlsafe(12)}"
    return f"{said}.{_seal(keys, said)}"


def holder(keys: Keyring, statement: str) -> Token | None:
    """Return the token of a login; None if the statement is invalid, or it or its token expired."""
    found = _STATEMENT.fullmatch(statement) if len(statement) <= LONGEST else None
    if found is None:
        return None
    said = statement.rpartition(".")[0]
    if not hmac.compare_digest(_seal(keys, said), found[4]) or time() >= int(found[2]):
        return None
    return keys.holder_of(found[1])


def _seal(keys: Keyring, said: str) -> str:
    return hmac.new(keys.sealing, said.encode(), sha256).hexdigest()
