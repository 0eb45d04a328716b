"""The mistakes in a form, a line each."""

from pydantic import ValidationError


def mistakes_in(error: ValidationError) -> tuple[str, ...]:
    """Return the first mistakes, a line each: where, and what is wrong."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:10]
    return tuple(
        f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in found
    )
