"""The patterns of names, for tokens and for lists."""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from itertools import product

from pacesetter_service.core.tokens import expression_of


def test_both_ways_to_write_a_pattern_match_what_a_shell_does() -> None:
    """All short patterns match two-letter names as a shell does, however they are written."""
    names = ["".join(each) for size in range(1, 5) for each in product("ab", repeat=size)]
    for pattern in ("".join(each) for size in range(1, 5) for each in product("ab*?", repeat=size)):
        for atomic in (True, False):
            expression = re.compile(expression_of((pattern,), atomic=atomic))
            for name in names:
                said = expression.search(name) is not None
                assert said == fnmatchcase(name, pattern), (pattern, name, atomic)


def test_many_stars_cost_no_more_than_few() -> None:
    """A pattern of sixty stars is matched against a long name immediately, and not in years."""
    asked = (
        "from pacesetter_service.core.tokens import NameScope;"
        " print(NameScope(('*a' * 60 + '*b',)).holds('a' * 128))"
    )
    command = [sys.executable, "-c", asked]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout == "False\n"
