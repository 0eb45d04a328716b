"""What a browser complains of while pages are tested."""

from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage


@dataclass
class Watched:
    """What browsers have complained of: errors of scripts, breaches of the policy, bad answers."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Take note of what is an error."""
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        """Return what no test has said that it expects."""
        return [each for each in self.complaints if not any(part in each for part in self.expected)]
