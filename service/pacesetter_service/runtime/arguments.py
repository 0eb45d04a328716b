"""What is wrong with an argument that only the use case itself can judge."""

MAX_ERRORS = 10
"""How many mistakes of one request are told; of more there are only so many more."""


class ArgumentError(Exception):
    """An argument of a query makes no sense for this session.

    Attributes:
        argument: Its name.
        message: What is wrong with it, and what to send instead.
    """

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"{argument}: {message}")
        self.argument = argument
        self.message = message
