"""Answers of the hot call that were said before: the ranks of a training are told the same.

Whatever stands in an answer follows from the session as it is, from the window and from the form
that is wished for; so while a session does not change, an answer is encoded once.
"""

from collections import OrderedDict
from collections.abc import Hashable

from pacesetter_service.core.session import Session

MOST = 1_024
"""How many answers are kept: the newest one of so many sessions."""

LONGEST = 16_384
"""Up to so many bytes an answer is kept: two windows of a thousand steps."""


class SaidBefore:
    """The newest answer of each session."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[Session, Hashable, bytes]] = OrderedDict()

    def find(self, session: Session, question: Hashable) -> bytes | None:
        """Return what was answered to a question, if that was the last one of this very state."""
        answer = self._answers.get(session.spec.name)
        if answer is None or answer[0] is not session or answer[1] != question:
            return None
        return answer[2]

    def keep(self, session: Session, question: Hashable, content: bytes) -> None:
        """Keep an answer, in place of the session's last one."""
        if len(content) > LONGEST:
            return
        name = session.spec.name
        self._answers[name] = (session, question, content)
        self._answers.move_to_end(name)
        if len(self._answers) > MOST:
            self._answers.popitem(last=False)
