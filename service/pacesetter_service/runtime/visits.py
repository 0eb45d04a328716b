"""Logins of browsers: a sealed statement that a token was shown, which any process can check.

A browser keeps the statement, and not the token. It names the token by its id and says until when
it holds; its seal is made with a key that follows from the service's own token. So every process
that was started with that token reads it, nothing is kept of a login, a token that is revoked ends
its logins at once, and another token of the service's own ends all of them.
"""

import hmac
import re
import secrets
from hashlib import sha256
from time import time

from pacesetter_service.core.tokens import Token
from pacesetter_service.runtime.keyring import Keyring

HOURS = 12
"""For how long a login holds."""

LONGEST = 200
"""The most characters of a statement."""

_STATEMENT = re.compile(r"([0-9a-f]*)\.([0-9]{1,12})\.([A-Za-z0-9_-]{16})\.([0-9a-f]{64})")


def begin(keys: Keyring, token: Token) -> str:
    """Return the statement of a login with a token, in characters that a cookie may have."""
    said = f"{token.id}.{int(time()) + HOURS * 3600}.{secrets.token_urlsafe(12)}"
    return f"{said}.{_seal(keys, said)}"


def holder(keys: Keyring, statement: str) -> Token | None:
    """Return whose login a statement is; None if it is none, over, or of a token that is."""
    found = _STATEMENT.fullmatch(statement) if len(statement) <= LONGEST else None
    if found is None:
        return None
    said = statement.rpartition(".")[0]
    if not hmac.compare_digest(_seal(keys, said), found[4]) or time() >= int(found[2]):
        return None
    return keys.holder_of(found[1])


def _seal(keys: Keyring, said: str) -> str:
    return hmac.new(keys.sealing, said.encode(), sha256).hexdigest()
