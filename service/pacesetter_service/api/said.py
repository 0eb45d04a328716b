"""Encoded answers of the hot call: all ranks of a training get the same.

An answer follows from the session's state, the window and the format. So while a session does not
change, an answer is encoded once. A state that nothing else needs is not kept for its answer.
"""

from collections import OrderedDict
from collections.abc import Hashable
from weakref import ReferenceType, ref

from pacesetter_service.core.session import Session

MOST = 1_024
"""How many answers are kept: the newest one of each session."""

LONGEST = 16_384
"""The longest answer that is kept, in bytes: two windows of a thousand steps."""


class SaidBefore:
    """The newest answer of each session."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[ReferenceType[Session], Hashable, bytes]] = (
            OrderedDict()
        )

    def find(self, session: Session, question: Hashable) -> bytes | None:
        """Return the answer to a question, if it was the last one about exactly this state."""
        answer = self._answers.get(session.spec.name)
        if answer is None or answer[0]() is not session or answer[1] != question:
            return None
        return answer[2]

    def keep(self, session: Session, question: Hashable, content: bytes) -> None:
        """Keep an answer; it replaces the session's last one."""
        if len(content) > LONGEST:
            return
        name = session.spec.name
        self._answers[name] = (ref(session), question, content)
        self._answers.move_to_end(name)
        if len(self._answers) > MOST:
            self._answers.popitem(last=False)
