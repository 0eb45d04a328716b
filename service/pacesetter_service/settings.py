"""The settings, as one frozen value; the only place that reads the environment.

Each field is an environment variable with the prefix `PACESETTER_` and an option of
`pacesetter serve` with the same name; an option wins over the environment.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

_HOST_NAME = re.compile(r"|\*|[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]?")
"""Of names, and of addresses of both kinds; nothing at all is none."""

MIN_SECRET = 16
"""The least characters of a secret that cannot be guessed, if they are random."""


def _beyond_guessing(secret: SecretStr) -> SecretStr:
    """Refuse a secret that is short, or that no header can carry."""
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
    """Take nothing for none: so does Compose say that a variable is not set."""
    return None if value == "" else value


def _host_names(listed: str) -> str:
    """Refuse what no Host header says, and what would be compared with a port in vain."""
    for name in listed.split(","):
        if not _HOST_NAME.fullmatch(name.strip()):
            raise PydanticCustomError(
                "no_host_name",
                "Give names or addresses without scheme and port, separated by commas, such as"
                " lr.example.com,pacesetter; or * for any",
            )
    return listed


Secret = Annotated[SecretStr, AfterValidator(_beyond_guessing)]


class Settings(BaseSettings):
    """Serve Pacesetter: the learning rates of running trainings, over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix="PACESETTER_",
        frozen=True,
        cli_kebab_case=True,
        cli_prog_name="pacesetter serve",
        cli_hide_none_type=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        7070, description="Port to listen on; 0 takes a free one and prints it."
    )
    database_url: str = Field(
        "sqlite:///pacesetter.db",
        description="Where the data is: a SQLite file, or a PostgreSQL database.",
    )
    auto_migrate: bool = Field(
        default=True,
        description="Whether the start brings the database to the newest schema by itself.",
    )
    admin_token: Annotated[Secret | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="The admin's token; authentication is off without one."
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


def default_database_url() -> str:
    """Return what the environment says of the database, for commands beside serving.

    Raises:
        pydantic.ValidationError: A value is out of its range.
    """
    return Settings().database_url


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the options and, for what they do not name, the environment.

    Raises:
        SystemExit: An option is unknown or help was asked for.
        pydantic.ValidationError: A value is out of its range.
    """
    return CliApp.run(Settings, cli_args=list(arguments))
