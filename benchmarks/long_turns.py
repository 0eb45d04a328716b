"""Our service with the turns of threads that Python has by default: a baseline."""

import sys

from pacesetter_service import __main__ as root
from pacesetter_service import turns

if __name__ == "__main__":
    turns.TURN = sys.getswitchinterval()
    root.main()
