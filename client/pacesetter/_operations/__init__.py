"""All operations that both clients have on a server, each described once."""

from pacesetter._operations._actions import Actions
from pacesetter._operations._attempts import Attempts
from pacesetter._operations._catalogue import Catalogue
from pacesetter._operations._events import Events
from pacesetter._operations._orders import Orders
from pacesetter._operations._plans import Plans
from pacesetter._operations._records import Records
from pacesetter._operations._sessions import Sessions
from pacesetter._operations._templates import Templates
from pacesetter._operations._tokens import Tokens
from pacesetter._operations._values import Values


class Operations(
    Actions,
    Orders,
    Plans,
    Sessions,
    Attempts,
    Values,
    Records,
    Events,
    Catalogue,
    Templates,
    Tokens,
):
    """The operations that operators and tools ask a server for."""


__all__ = ["Operations"]
