"""The settings as one frozen value; the only place that reads the environment.

Each field is an environment variable with the prefix `PACESETTER_` and an option of
`pacesetter serve` with the same name; an option wins over the environment.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from pacesetter_service.core.mistakes import said

_HOST_NAME = re.compile(r"|\*|[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]?")
"""Matches host names, IPv4 and IPv6 addresses, `*`, and an empty entry of the list."""

MIN_SECRET = 16
"""The shortest secret that cannot be guessed, in characters, if they are random."""


def _beyond_guessing(secret: SecretStr) -> SecretStr:
    """Refuse a secret that is too short, or that no header can carry."""
    text = secret.get_secret_value()
    if len(text) < MIN_SECRET or not all("!" <= each <= "~" for each in text):
        raise PydanticCustomError(
            "weak_secret",
            "The token must have at least {least} characters, all of them printable ASCII and none"
            " a space. Make one with: openssl rand -base64 32",
            {"least": MIN_SECRET},
        )
    return secret


def _none_if_empty(value: object) -> object:
    """Read an empty value as None: Docker Compose passes an unset variable like that."""
    return None if value == "" else value


MOST_OF_A_FILE = 65_536
"""The largest file that is read for a secret, in bytes; a larger one holds something else."""


def _read_secret(path: str) -> str:
    """Return the content of a file, without the newline at its end.

    Raises:
        PydanticCustomError: It cannot be read, or holds nothing that can be a secret.
    """
    try:
        with Path(path).open("rb") as file:
            found = file.read(MOST_OF_A_FILE + 1).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise PydanticCustomError(
            "unreadable",
            "The file {path} cannot be read ({reason}). Name a file with the secret alone, that"
            " the service's user can read",
            {"path": repr(path), "reason": reason},
        ) from None
    secret = found.removesuffix("\n").removesuffix("\r")
    if not 0 < len(secret) <= MOST_OF_A_FILE:
        raise PydanticCustomError(
            "no_secret",
            "The file {path} is {what}. Write the secret into it, and nothing else",
            {"path": repr(path), "what": "too large for a secret" if secret else "empty"},
        )
    return secret


def _web_address(address: str | None) -> str | None:
    """Refuse an address that is not HTTP, and one with a password, which logs would show."""
    if address is None:
        return None
    found = urlsplit(address)
    if found.scheme not in ("http", "https") or not found.hostname or "@" in found.netloc:
        raise PydanticCustomError(
            "no_web_address",
            "Give an address that begins with http:// or https://, without a user or a password",
        )
    return address


def _host_names(listed: str) -> str:
    """Refuse entries that no Host header can match, such as one with a port."""
    for name in listed.split(","):
        if not _HOST_NAME.fullmatch(name.strip()):
            raise PydanticCustomError(
                "no_host_name",
                "Give names or addresses without scheme and port, separated by commas, such as"
                " lr.example.com,pacesetter; or * for any",
            )
    return listed


SECRETS = ("admin_token", "database_url", "listen_url", "webhook_secret")
"""The settings that hold a secret; for each, another setting names a file with it."""

SecretFile = Annotated[str | None, BeforeValidator(_none_if_empty)]

Secret = Annotated[SecretStr, AfterValidator(_beyond_guessing)]


ENV_PREFIX = "PACESETTER_"

DatabaseUrl = Annotated[
    str,
    Field(
        repr=False,  # it may contain a password
        description="Where the data is: a SQLite file, or a PostgreSQL database.",
    ),
]

DatabaseUrlFile = Annotated[
    SecretFile,
    Field(description="A file with the database URL, in its place: for one with a password."),
]

DEFAULT_DATABASE = "sqlite:///pacesetter.db"


class _WithSecrets(BaseSettings):
    """Settings, some of which may be read from files."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Read secrets from the files that are named instead of them."""
        read = {name: value for name, value in given.items() if name not in SECRETS or value != ""}
        for name in SECRETS:
            path = read.get(f"{name}_file") or ""
            if not path:
                continue
            if name in read:
                raise _misplaced(
                    f"{name}_file", "The setting and the file in its place are both given. Drop one"
                )
            try:
                read[name] = _read_secret(path)
            except PydanticCustomError as error:
                raise _misplaced(f"{name}_file", error.message()) from None
        return read


class DatabaseSettings(_WithSecrets):
    """The settings that the other commands need."""

    database_url: DatabaseUrl = DEFAULT_DATABASE
    database_url_file: DatabaseUrlFile = None


class Settings(_WithSecrets):
    """Serve Pacesetter: the learning rates of running trainings, over HTTP."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_prog_name="pacesetter serve", cli_hide_none_type=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        7070, description="Port to listen on; 0 takes a free one and prints it."
    )
    database_url: DatabaseUrl = DEFAULT_DATABASE
    database_url_file: DatabaseUrlFile = None
    listen_url: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None,
        repr=False,  # it may contain a password
        description="The same PostgreSQL database, past any pooler: changes of other services are"
        " heard there at once.",
    )
    listen_url_file: SecretFile = Field(None, description="A file with it, in its place.")
    auto_migrate: bool = Field(
        default=True,
        description="Whether the start brings the database to the newest schema by itself.",
    )
    admin_token: Annotated[Secret | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="The admin's token; authentication is off without one."
    )
    admin_token_file: SecretFile = Field(
        None, description="A file with the admin's token, in its place."
    )
    insecure: bool = Field(
        default=False, description="Listen beyond this machine without an admin's token."
    )
    tls_cert: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="A PEM file with the certificate, and those in between: speak TLS."
    )
    tls_key: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="A PEM file with the certificate's private key."
    )
    tls_client_ca: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="A PEM file with the authorities of which each client has a certificate."
    )
    allowed_hosts: Annotated[str, AfterValidator(_host_names)] = Field(
        "",
        description="Names by which the service is asked besides its own, separated by commas;"
        " * for any.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe log lines to write."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log lines for people, or one JSON object each."
    )
    webhook_url: Annotated[
        str | None, BeforeValidator(_none_if_empty), AfterValidator(_web_address)
    ] = Field(None, repr=False, description="Where alarms of sessions are sent, over HTTP.")
    webhook_secret: Annotated[Secret | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="What these are signed with."
    )
    webhook_secret_file: SecretFile = Field(None, description="A file with it, in its place.")
    tracing: bool = Field(
        default=False,
        description="Send a span of each call to an OpenTelemetry collector; OpenTelemetry's own"
        " variables say where.",
    )
    max_body_size: Annotated[int, Field(ge=1024)] = Field(
        1_048_576, description="The largest request body, in bytes."
    )
    max_import_size: Annotated[int, Field(ge=1024)] = Field(
        1_073_741_824, description="The largest record that is imported, in bytes."
    )
    max_header_size: Annotated[int, Field(ge=1024)] = Field(
        32_768, description="The largest head of a request, or its trailers, in bytes."
    )
    max_url_length: Annotated[int, Field(ge=256)] = Field(
        8_192, description="The longest address of a request, query included, in bytes."
    )
    header_timeout: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Seconds in which the head of a request must have come."
    )
    body_timeout: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Seconds in which a body must have come, and one more for each 16 KiB of it;"
        " also how long an answer waits for a reader that takes nothing.",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        8_192, description="Connections at once; further ones are answered 503."
    )
    min_free_disk: Annotated[int, Field(ge=0)] = Field(
        16_777_216,
        description="Bytes of a SQLite file's disk that stay free; writes beyond are answered 507.",
    )
    max_held: Annotated[int, Field(ge=0)] = Field(
        8_192, description="Calls that wait for a measurement at once; others are to ask again."
    )
    max_feeds: Annotated[int, Field(ge=0)] = Field(
        1_024, description="Event streams at once; further ones are answered 503."
    )
    rate_per_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="Calls a second with one token, beyond which 429; 0 for any number."
    )
    rate_per_address: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="The same from one address."
    )
    rate_burst: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10.0, description="Seconds for which a silent caller may save up its calls."
    )
    feed_heartbeat: Annotated[float, Field(gt=0)] = Field(
        15.0, description="Seconds without an event after which a feed shows that it is alive."
    )
    feed_patience: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Seconds that a feed waits for a reader that takes nothing."
    )
    max_queued: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Writes that may wait before further ones are answered 503."
    )
    max_cached_sessions: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Sessions that memory holds; others are read when asked for."
    )
    stall_after: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Seconds of work without a result after which the writer is not ready."
    )
    archive_after_days: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(_none_if_empty)
    ] = Field(
        None,
        description="Days after which a session that is finished, failed or silent is archived;"
        " never without it.",
    )
    purge_after_days: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(_none_if_empty)
    ] = Field(
        None,
        description="Days after which an archived session is removed for good; never without it.",
    )
    shutdown_timeout: Annotated[int, Field(ge=0)] = Field(
        10, description="Seconds that open requests get to finish when the server stops."
    )
    failpoints: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="For tests: where the service is to die or to fail, and when."
    )
    allow_failpoints: bool = Field(
        default=False, description="For tests: whether it may be told to."
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise _misplaced(missing, "TLS takes a certificate and its key: give both, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise _misplaced(
                "tls_client_ca", "It takes TLS: give a certificate and its key as well"
            )
        return self

    @model_validator(mode="after")
    def _failpoints_are_meant(self) -> Self:
        if self.failpoints and not self.allow_failpoints:
            raise _misplaced(
                "failpoints",
                "It has the service die or fail on purpose. Drop it; a test that means it also says"
                " PACESETTER_ALLOW_FAILPOINTS=1",
            )
        return self


def _misplaced(name: str, message: str) -> ValidationError:
    """Return an error that names the setting to blame, without its value."""
    error = PydanticCustomError("secret_file", "{message}", {"message": message})
    return ValidationError.from_exception_data(
        Settings.__name__,
        [InitErrorDetails(type=error, loc=(name,), input=None)],
        hide_input=True,
    )


def default_database_url() -> str:
    """Return the database URL of the environment, for commands other than `serve`.

    Raises:
        pydantic.ValidationError: The file that should hold it cannot be read, for instance.
    """
    return DatabaseSettings().database_url


def mistakes_in(error: ValidationError) -> list[tuple[str, str]]:
    """Return the settings that are wrong, each with what is wrong with it, without values."""
    return [("_".join(map(str, each["loc"])), said(each)) for each in error.errors()]


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the options and, for settings that they leave out, the environment.

    Raises:
        SystemExit: An option is unknown or help was asked for.
        pydantic.ValidationError: A value is out of its range.
    """
    return CliApp.run(Settings, cli_args=list(arguments))
