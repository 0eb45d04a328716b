"""What a training that began without the server settles with it when it is back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pacesetter._attempts import Opener
from pacesetter._errors import StaleAttemptError
from pacesetter._info import SessionInfo
from pacesetter._sync_channel import SyncChannel


@dataclass(frozen=True)
class Claim:
    """What must be settled when the server is back, before anything else is exchanged.

    Attributes:
        step: The first step that is trained again.
        key: The key of the attempt.
        known: The newest attempt that the job knows of. If the server knows a newer one, another
            job has taken over, and the claim is void.
        opener: The opener that began there without the server, where the trainer has not asked for
            an attempt: then the server's session is judged as it is found.
    """

    step: int
    key: str
    known: int
    opener: Opener | None = None

    def merged(self, later: Claim) -> Claim:
        """Return one claim for two, neither of which the server has heard of."""
        step, known = min(self.step, later.step), max(self.known, later.known)
        return replace(self, step=step, known=known)

    def redeem(
        self, channel: SyncChannel, name: str, batch_size: int | None, deadline: float
    ) -> tuple[SessionInfo, bool]:
        """Open the attempt that was claimed, if a trainer has gone beyond its first step.

        Returns:
            The session as the training goes on in it, and whether an opener begins it again there.

        Raises:
            StaleAttemptError: Another job has opened an attempt meanwhile.
            ResumeError: The session was trained before, and its opener has not said what to do
                then.
        """
        if self.opener is not None:
            # The session is judged as if it had been opened while the server was reachable.
            info = SessionInfo.parse(channel.described(name, deadline), name)
            begins_again = self.opener.begins_again(info, self.step)
            if begins_again:
                info = channel.open_attempt(name, self.step, self.key, batch_size, deadline)
            return info, begins_again
        number, key = channel.newest_attempt(name, deadline)
        answer = channel.described(name, deadline)
        # Where an operator took steps back, trainers go on in another attempt under their number.
        known = number if self.known in answer.get("carried", ()) else self.known
        if number > known and key != self.key:
            raise StaleAttemptError(
                f"attempt {number} of session {name} was opened meanwhile, and this "
                f"training began at step {self.step} without the server, knowing of attempt "
                f"{self.known}: stop it, or start it again from its newest checkpoint while the "
                "server is there",
                status=409,
                code="stale_attempt",
            )
        info = SessionInfo.parse(answer, name)
        if key == self.key or self.step < info.horizon:
            info = channel.open_attempt(name, self.step, self.key, batch_size, deadline)
        return info, False
