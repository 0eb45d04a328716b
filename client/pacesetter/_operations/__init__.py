"""All that both clients can ask of a server, each operation described once."""

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
    """What operators and tools ask of a server."""


__all__ = ["Operations"]
