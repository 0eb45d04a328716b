"""torch's schedulers as data, and what their saved states say.

torch is not imported: a scheduler is recognised by the name of its class. The class must be torch's
own, as a subclass may follow another law.
"""

from pacesetter._from_torch._candidates import candidates
from pacesetter._from_torch._convert import Conversion
from pacesetter._from_torch._state import taken_over

__all__ = ["Conversion", "candidates", "taken_over"]
