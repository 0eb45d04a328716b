"""Errors in arguments that only the use case itself can judge."""

MAX_ERRORS = 10
"""The most mistakes of one request that are reported."""


class ArgumentError(Exception):
    """An argument of a query that makes no sense for this session.

    Attributes:
        argument: Its name.
        message: What is wrong with it, and what to send instead.
    """

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"{argument}: {message}")
        self.argument = argument
        self.message = message
