"""Browser errors while pages are tested."""

from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage


@dataclass
class Watched:
    """Errors that browsers have logged: of scripts, breaches of the policy, bad answers."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Record what is an error."""
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        """Return the errors that no test expects."""
        return [each for each in self.complaints if not any(part in each for part in self.expected)]
