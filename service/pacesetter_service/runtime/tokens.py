"""Creating and revoking tokens."""

import secrets
from datetime import UTC, datetime

import structlog

from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.errors import (
    AuthenticationOffError,
    PacesetterError,
    StorageUnavailableError,
    TokenNotFoundError,
)
from pacesetter_service.core.tokens import NameScope, Role, Token
from pacesetter_service.runtime.keyring import Keyring, digest_of, written
from pacesetter_service.runtime.service import Service
from pacesetter_service.store import tokens
from pacesetter_service.store.store import Store

log = structlog.get_logger("pacesetter.tokens")


def refuse_if_off(service: Service) -> Keyring:
    """Return the valid tokens, or refuse if authentication is off.

    Raises:
        AuthenticationOffError: Authentication is off.
    """
    if service.keys is None:
        raise AuthenticationOffError
    return service.keys


async def create_token(
    service: Service,
    name: str,
    role: Role,
    until: datetime | None,
    scope: NameScope,
    actor: str,
    *,
    bounds: Bounds | None = None,
) -> tuple[Token, str]:
    """Create a token; return it, and its secret, which is stored nowhere.

    Args:
        service: The service.
        name: The name of its holder.
        role: What its holder may do.
        until: When it expires; None for never, unless it is revoked.
        scope: The session names that its holder may use.
        actor: Who creates it.
        bounds: Limits on its holder's orders; None for whatever the role allows.

    Raises:
        AuthenticationOffError: Authentication is off.
    """
    keys = refuse_if_off(service)
    token, secret = _made(name, role, until, scope)
    token = token._replace(bounds=bounds)
    await service.writer.call(lambda: _add(service.store, keys, token))
    log.info("token_created", id=token.id, name=token.name, role=token.role, by=actor)
    return token, secret


def list_tokens(service: Service) -> list[Token]:
    """Return every token but the service's own, oldest first.

    Raises:
        AuthenticationOffError: Authentication is off.
    """
    return refuse_if_off(service).tokens()


async def revoke_token(service: Service, token_id: str, actor: str) -> None:
    """Revoke a token: it is invalid from now on, also if the database has it no more.

    Raises:
        AuthenticationOffError: Authentication is off.
        TokenNotFoundError: There is no token of that id.
        StorageUnavailableError: It was not revoked, or perhaps. If perhaps, it is refused from now
            on until the service is restarted, and listed until the call is repeated.
    """
    keys = refuse_if_off(service)
    await service.writer.call(lambda: _drop(service.store, keys, token_id))
    log.info("token_revoked", id=token_id, by=actor)


async def store_uses(service: Service, keys: Keyring) -> None:
    """Write when tokens were last used; what cannot be written now is kept for the next time."""
    uses = keys.take_uses()

    def write() -> None:
        with service.store.transaction() as connection:
            tokens.note_uses(connection, uses)

    try:
        await service.writer.call(write)
    except BaseException as error:
        keys.put_back(uses)
        if not isinstance(error, PacesetterError):
            raise


def _made(name: str, role: Role, until: datetime | None, scope: NameScope) -> tuple[Token, str]:
    token_id, now = secrets.token_hex(6), written(datetime.now(UTC))
    secret = f"ps_{token_id}_{secrets.token_urlsafe(32)}"
    expires = None if until is None else written(until)
    digest = digest_of(secret.encode())
    return Token(token_id, name, role, digest, now, expires, scope), secret


# On the writer's thread, where nothing comes between a commit and the change of the keyring -----


def _add(store: Store, keys: Keyring, token: Token) -> None:
    try:
        with store.transaction() as connection:
            tokens.write(connection, token)
    except StorageUnavailableError as error:
        if error.kept == "perhaps":  # its secret was not given out; once listed, it can be revoked
            keys.add(token)
            keys.suspend(token.id)
        raise
    keys.add(token)


def _drop(store: Store, keys: Keyring, token_id: str) -> None:
    try:
        _drop_row(store, token_id)
    except StorageUnavailableError as error:
        if error.kept == "perhaps":  # it is listed until a repeated call settles it
            keys.suspend(token_id)
        raise
    except TokenNotFoundError:
        keys.remove(token_id)
        raise
    keys.remove(token_id)


def _drop_row(store: Store, token_id: str) -> None:
    with store.transaction(frees=True) as connection:  # one that has leaked does not wait for room
        if not tokens.drop(connection, token_id):
            raise TokenNotFoundError(token_id)
