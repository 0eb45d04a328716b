"""The names of the sessions of a search's trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Naming = str | Callable[[Any], str]
"""A name, a template such as `sweep-{run}`, or a function from a trial to a name."""


def name_of(naming: Naming, trial: Any, run: str | None) -> str:  # noqa: ANN401 - of any search
    """Return the name of the session that a training must follow.

    Args:
        naming: The naming that the user gave.
        trial: The search's trial object; None for a training that is not a trial.
        run: The name of the trial's folder, if it has one.

    Raises:
        TypeError: The function has returned something other than a name.
        ValueError: All trials would have one name, or a template cannot be filled in.
    """
    if callable(naming):
        name = naming(trial)
        if not isinstance(name, str):
            raise TypeError(
                f"the function that names sessions gave {name!r} for {trial!r}: let it return the "
                "name, a string"
            )
        return name
    if "{" in naming:
        return _filled(naming, trial, run)
    if trial is not None:
        raise ValueError(one_for_all(naming))
    return naming


def one_for_all(name: str) -> str:
    """Return the message for a search whose trials would all train one session."""
    return (
        f"this training is a trial of a search, and each trial would train session {name}: name "
        f"them, with a template such as '{name}-{{run}}' or '{name}-{{trial.number}}', or with a "
        "function of the trial"
    )


def _filled(template: str, trial: object, run: str | None) -> str:
    if trial is None:
        raise ValueError(
            f"the session's name {template!r} is a template for the trials of a search, and this "
            "training is none: pass a name, or a function that is given None here, as in "
            "lambda trial: 'best' if trial is None else f'sweep-{trial.number}'"
        )
    fields = {"trial": trial} if run is None else {"trial": trial, "run": run}
    try:
        return template.format(**fields)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ValueError(
            f"the session's name {template!r} cannot be filled in ({error!r}): there is "
            f"{' and '.join(fields)}, and the trial is {trial!r}"
        ) from None
