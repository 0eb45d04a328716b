"""Templates: a team's schedules, published under a name and a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsIndex
from urllib.parse import quote

from pacesetter._operation import Call, an_object, listed_as, operation
from pacesetter._plain import given, plain

_PATH = "/v1/templates"
_read_list = listed_as("templates")


class Templates:
    """Templates, each shown as `{"reference", "name", "version", "template", "deprecated", ...}`.

    A session is made from one by `create("run-1", template="vit@3", parameters={"lr": 0.1})`.
    """

    @operation
    def templates(self, name: str | None = None) -> Call[list[dict[str, Any]]]:
        """Return the newest version of each template, or all versions of one.

        Args:
            name: The template whose versions are wanted.

        Raises:
            NotFoundError: There is no such template.
        """
        return Call("GET", _PATH if name is None else _path(name), _read_list)

    @operation
    def template(self, name: str, version: SupportsIndex | None = None) -> Call[dict[str, Any]]:
        """Return one version of a template.

        Args:
            name: The template's name.
            version: Its version, from 1; the newest if not given.

        Raises:
            NotFoundError: There is no such template, or no such version.
        """
        if version is None:
            return Call("GET", _path(name), lambda answer: _read_list(answer)[-1])
        return Call("GET", f"{_path(name)}/{plain(version)}", an_object)

    @operation
    def publish_template(self, body: Mapping[str, Any]) -> Call[dict[str, Any]]:
        """Publish a template; it gets the next version, and never changes again.

        A body that equals the newest version is that version.

        Args:
            body: `{"name", "description", "spec", "parameters", ...}`, as described in
                docs/schedules.md.

        Raises:
            InvalidRequestError: The template is refused; `.errors` says where.
        """
        return Call("POST", _PATH, an_object, body=plain(body))

    @operation
    def diff_templates(
        self, name: str, before: SupportsIndex, after: SupportsIndex
    ) -> Call[list[dict[str, Any]]]:
        """Return how two versions of a template differ.

        Args:
            name: The template's name.
            before: One version,
            after: and another one.

        Returns:
            `{"pointer", "before", "after"}` of each place; None stands for what is absent.
        """
        params = given(before=before, after=after)
        return Call("GET", _path(name) + "/diff", listed_as("differences"), params=params)

    @operation
    def deprecate_template(
        self, name: str, version: SupportsIndex, reason: str
    ) -> Call[dict[str, Any]]:
        """Say why a version should no longer be used; sessions made from it then warn of it.

        Args:
            name: The template's name.
            version: Its version.
            reason: Why, in a line of at most 500 characters.
        """
        path = f"{_path(name)}/{plain(version)}/deprecate"
        return Call("POST", path, an_object, body={"reason": reason})


def _path(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"
