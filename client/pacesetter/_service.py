"""The server's part of this package, which may not be installed beside the client."""

from __future__ import annotations

import importlib
import platform
import sys
from types import ModuleType


class ServiceMissingError(ImportError):
    """The server cannot run here."""


def load_service(name: str, advice: str) -> ModuleType:
    """Return a module of the server's part of the package.

    Args:
        name: Its dotted name.
        advice: What to do where this Python is too old for it.

    Raises:
        ServiceMissingError: This Python is too old, or that part is not installed.
    """
    if sys.version_info < (3, 11):  # the client alone runs on 3.10 too
        raise ServiceMissingError(
            "the server needs Python 3.11 or newer, and this is "
            f"{platform.python_version()}: {advice}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ServiceMissingError(
            f"the server's part is not installed ({error.name} is missing): "
            "pip install 'pacesetter[service]'"
        ) from error
