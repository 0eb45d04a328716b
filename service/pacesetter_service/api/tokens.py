"""Tokens: created for a caller in a role, listed and revoked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, BaseModel, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.api import bodies, paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.context import Actor, Service
from pacesetter_service.api.openapi import body_of
from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.model import Model, Real, Written
from pacesetter_service.core.tokens import (
    ADMIN,
    MAX_PATTERNS,
    RESERVED,
    NamePattern,
    NameScope,
    Role,
    Token,
)
from pacesetter_service.runtime import tokens

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

TokenId = Annotated[str, Path(description="The token's id, which its secret names too.")]

MOST_SECONDS = 36_500 * 86_400
"""The longest life of a token that expires, in seconds."""

HolderName = Annotated[
    str,
    Written(
        r"^[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?$",
        "Name the holder by 1 to 128 characters of ASCII, all of them printable, with no blank at"
        " either end",
    ),
]
"""A text that a header can carry, and the record can keep."""


class TokenRequest(Model):
    """The token to create."""

    name: HolderName = Field(description="of the holder: the author of what is ordered with it")
    role: Role = Field(description="what the holder may do; each role includes those before it")
    expires_in_days: Annotated[Real, Field(gt=0, le=36_500)] | None = Field(
        default=None,
        description="for how many days it is good; without it, until it is revoked",
    )

    expires_in: Annotated[Real, Field(gt=0, le=MOST_SECONDS)] | None = Field(
        default=None, description="the same in seconds"
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="the moment from which on it is worth nothing, with its offset"
    )
    scope: Annotated[tuple[NamePattern, ...], Field(max_length=MAX_PATTERNS)] = Field(
        default=(),
        description="the names of sessions and templates that the holder may speak of, such as"
        " `team-a-*`: `*` stands for any characters, `?` for one; without it, every name",
    )
    bounds: Bounds | None = Field(
        default=None,
        description="what may be ordered with it at most, as for a program that acts by itself;"
        " all else that changes something is refused to it. Without it, whatever the role may",
    )

    @field_validator("name")
    @classmethod
    def _somebody_in_particular(cls, name: str) -> str:
        if name.casefold() in RESERVED:
            raise PydanticCustomError(
                "reserved", "This name says who has no token of their own. Choose another one"
            )
        return name

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if sum(each is not None for each in self._ends()) > 1:
            raise PydanticCustomError(
                "two_ends", "Give one of `expires_in_days`, `expires_in` and `expires_at`"
            )
        return self

    @field_validator("expires_at")
    @classmethod
    def _yet_to_come(cls, moment: datetime | None) -> datetime | None:
        if moment is not None:
            seconds = (moment - datetime.now(UTC)).total_seconds()
            if not 0 < seconds <= MOST_SECONDS:
                raise PydanticCustomError(
                    "no_future", "Give a moment to come, and not more than a hundred years away"
                )
        return moment

    def _ends(self) -> tuple[object, ...]:
        return self.expires_in_days, self.expires_in, self.expires_at

    def until(self) -> datetime | None:
        """Return when the token should expire; None for never."""
        if self.expires_in_days is not None:
            return datetime.now(UTC) + timedelta(days=self.expires_in_days)
        if self.expires_in is not None:
            return datetime.now(UTC) + timedelta(seconds=self.expires_in)
        return self.expires_at

    @model_validator(mode="after")
    def _an_admin_has_no_scope(self) -> Self:
        if self.scope and self.role == ADMIN:
            raise PydanticCustomError(
                "unbounded",
                "An admin can make any token, so a scope would bound nothing. Leave `scope` out, or"
                " take the role 'operator'",
            )
        return self

    @model_validator(mode="after")
    def _bounds_are_an_operators(self) -> Self:
        if self.bounds is not None and self.role != "operator":
            raise PydanticCustomError(
                "unbounded",
                "Bounds say what an operator may order, and the role {role!r} is none to bound by"
                " them. Take the role 'operator', or leave `bounds` out",
                {"role": self.role},
            )
        return self


class TokenView(BaseModel):
    """A token, without its secret."""

    id: str = Field(description="what the token is revoked by")
    name: str = Field(description="who holds it: the author of what is ordered with it")
    role: Role = Field(description="what its holder may do")
    created_at: Moment = Field(description="when it was made")
    expires_at: Moment | None = Field(description="from when on it is worth nothing; null is never")
    scope: list[str] = Field(
        description="the names of sessions and templates that it is for; empty is every name"
    )
    last_used_at: Moment | None = Field(
        description="when a call was last made with it, to about a minute; null if none was"
    )
    bounds: Bounds | None = Field(
        description="what may be ordered with it at most; null for whatever the role may"
    )


class IssuedToken(TokenView):
    """A token with its secret, which is shown this once."""

    token: str = Field(description="the secret, to be sent as `Authorization: Bearer …`")


class TokenList(BaseModel):
    """Every token but the service's own, oldest first; expired ones stay until revoked."""

    tokens: list[TokenView] = Field(description="the tokens, the oldest first")
    next_page_token: str | None = Field(default=None, description=paging.WHOLE)


@router.post("", status_code=201, openapi_extra=body_of("TokenRequest"))
async def create_token(
    body: Annotated[TokenRequest, bodies.model(TokenRequest)],
    service: Service,
    response: Response,
    actor: Actor = "anonymous",
) -> IssuedToken:
    """Create a token. Its secret is only in this answer: it cannot be shown again.

    Several tokens may have one name, for instance while one replaces another.
    """
    token, secret = await tokens.create_token(
        service,
        body.name,
        body.role,
        body.until(),
        NameScope(body.scope),
        actor,
        bounds=body.bounds,
    )
    response.headers["cache-control"] = "no-store"
    return IssuedToken(**dict(_view(token)), token=secret)


@router.get("")
async def list_tokens(service: Service) -> TokenList:
    """List the tokens, without their secrets."""
    return TokenList(tokens=[_view(token) for token in tokens.list_tokens(service)])


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: TokenId, service: Service, actor: Actor = "anonymous") -> None:
    """Revoke a token: it is invalid from now on, and feeds that it has opened end."""
    await tokens.revoke_token(service, token_id, actor)


def _view(token: Token) -> TokenView:
    """Return the view of a token."""
    return TokenView.model_validate({**token._asdict(), "scope": list(token.scope.patterns)})
