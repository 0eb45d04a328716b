"""Tokens: letting somebody in, in a role, and out again."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.api.auth import Keyring, digest_of
from pacesetter_service.api.context import Actor, Service
from pacesetter_service.core.errors import AuthenticationOffError, TokenNotFoundError
from pacesetter_service.core.model import Real
from pacesetter_service.core.tokens import RESERVED, Role, Token
from pacesetter_service.storage import tokens
from pacesetter_service.storage.store import Store

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

TokenId = Annotated[str, Path(description="The token's id, which its secret names too.")]

HolderName = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?$")]
"""What a header can say, and the record can keep."""

log = structlog.get_logger("pacesetter.tokens")


class TokenRequest(BaseModel):
    """Whom to let in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: HolderName = Field(description="of the holder: the author of what is ordered with it")
    role: Role = Field(description="what the holder may do; each role includes those before it")
    expires_in_days: Annotated[Real, Field(gt=0, le=36_500)] | None = Field(
        default=None, description="for how long it is good; without it, until it is revoked"
    )

    @field_validator("name")
    @classmethod
    def _somebody_in_particular(cls, name: str) -> str:
        if name.casefold() in RESERVED:
            raise PydanticCustomError(
                "reserved", "This name says who has no token of their own. Choose another one"
            )
        return name


class TokenView(BaseModel):
    """A token, without its secret."""

    id: str
    name: str
    role: Role
    created_at: str
    expires_at: str | None


class IssuedToken(TokenView):
    """A token with its secret, which is shown this once."""

    token: str


class TokenList(BaseModel):
    """Every token but the service's own, the oldest first; expired ones stay until revoked."""

    tokens: list[TokenView]


async def _keys(service: Service) -> Keyring:
    if service.keys is None:
        raise AuthenticationOffError
    return service.keys


Keys = Annotated[Keyring, Depends(_keys)]


@router.post("", status_code=201)
async def create_token(
    body: TokenRequest,
    keys: Keys,
    service: Service,
    response: Response,
    actor: Actor = "somebody",
) -> IssuedToken:
    """Make a token. Its secret is in this answer and nowhere else: it can not be shown again.

    Several may have one name, as when one is to take another's place.
    """
    token, secret = _made(body)
    await service.ledger.call(lambda store: _let_in(store, keys, token))
    log.info("token_created", id=token.id, name=token.name, role=token.role, by=actor)
    response.headers["cache-control"] = "no-store"
    return IssuedToken(**dict(_view(token)), token=secret)


@router.get("")
async def list_tokens(keys: Keys) -> TokenList:
    """List the tokens, without their secrets."""
    return TokenList(tokens=[_view(token) for token in keys.tokens()])


@router.delete("/{token_id}", status_code=204)
async def revoke_token(
    token_id: TokenId, keys: Keys, service: Service, actor: Actor = "somebody"
) -> None:
    """Revoke a token: from now on it is worth nothing, and feeds that it has opened end."""
    await service.ledger.call(lambda store: _let_out(store, keys, token_id))
    log.info("token_revoked", id=token_id, by=actor)


def _made(body: TokenRequest) -> tuple[Token, str]:
    """Make a token and its secret."""
    token_id, now = secrets.token_hex(6), datetime.now(UTC)
    secret = f"ps_{token_id}_{secrets.token_urlsafe(32)}"
    days = body.expires_in_days
    expires = None if days is None else _written(now + timedelta(days=days))
    digest = digest_of(secret.encode())
    return Token(token_id, body.name, body.role, digest, _written(now), expires), secret


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


# On the writer's thread, where nothing comes between a commit and what follows from it ----------


def _let_in(store: Store, keys: Keyring, token: Token) -> None:
    with store.transaction() as connection:
        tokens.write(connection, token)
    keys.add(token)


def _let_out(store: Store, keys: Keyring, token_id: str) -> None:
    with store.transaction() as connection:
        if not tokens.drop(connection, token_id):
            raise TokenNotFoundError(token_id)
    keys.remove(token_id)


def _view(token: Token) -> TokenView:
    """Show a token."""
    return TokenView(
        id=token.id,
        name=token.name,
        role=token.role,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )
