"""torch's schedulers as data, and what their saved states say.

torch is not imported: a scheduler is known by the name of its class, which must be torch's own, for
a subclass may follow another law.
"""

from pacesetter._from_torch._candidates import candidates
from pacesetter._from_torch._convert import Conversion
from pacesetter._from_torch._state import taken_over

__all__ = ["Conversion", "candidates", "taken_over"]
