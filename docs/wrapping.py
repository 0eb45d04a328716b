"""Markdown wrapped at 120 columns, for the programs that write pages."""

import re
import textwrap
from collections.abc import Iterator

WIDTH = 120
"""The columns that a line of prose may have."""

KEPT_WHOLE = 90
"""The characters up to which a span of code stays on one line."""

GLUE = "\x00"
"""What stands for a space at which no line may end."""

LINE = re.compile(r"((?:> ?)*)( *)((?:[-*+]|\d+[.)]) +)?(.*)")
"""A line's marks of quotation, its indent, the mark of an item, and the text."""

VERBATIM = re.compile(r"[|#<]|\[[^]]+\]: |(?:-{3,}|\*{3,})$")
"""Tables, headings, HTML, definitions of links and rules."""

SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")

MISREAD = re.compile(r" (?=(?:[-+*#=]+|\d+[.)])(?: |$)|[>|])")
"""A space before what Markdown would take for a mark at the beginning of a line."""


def wrapped(page: str) -> str:
    """Return a page with its paragraphs, items and quotations wrapped; the rest stays."""
    return "\n".join(_lines(page.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    block: list[str] = []
    fenced, quoted = False, ""
    for line in lines:
        quote, indent, mark, text = _parts(line)
        fence = text.startswith(("```", "~~~"))
        code = fenced or fence or (len(indent) >= 4 and not mark and not block)
        verbatim = code or not text or VERBATIM.match(text) is not None
        fenced ^= fence
        if verbatim or mark or quote != quoted:
            yield from _filled(block)
            block = []
        quoted = quote
        if verbatim:
            yield line
        else:
            block.append(line)
    yield from _filled(block)


def _parts(line: str) -> tuple[str, str, str, str]:
    found = LINE.match(line)
    assert found is not None  # noqa: S101 - every part of the pattern may be empty
    quote, indent, mark, text = found.groups(default="")
    return quote, indent, mark, text


def _filled(block: list[str]) -> list[str]:
    """Wrap one paragraph or one item."""
    if not block:
        return []
    quote, indent, mark, _ = _parts(block[0])
    text = " ".join(line.removeprefix(quote).strip() for line in block).removeprefix(mark)
    filled = textwrap.wrap(
        MISREAD.sub(GLUE, SPAN.sub(_whole, text)),
        WIDTH,
        initial_indent=f"{quote}{indent}{mark}",
        subsequent_indent=f"{quote}{indent}{' ' * len(mark)}",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(GLUE, " ") for line in filled]


def _whole(span: re.Match[str]) -> str:
    code = span[0]
    return code.replace(" ", GLUE) if len(code) <= KEPT_WHOLE else code


def fenced_tables(description: str) -> str:
    """Put the tables of a docstring, which Markdown does not know, between fences."""
    paragraphs = description.strip().split("\n\n")
    table = re.compile(r"^ *=+( +=+)+ *$", re.MULTILINE)
    return "\n\n".join(f"```\n{each}\n```" if table.search(each) else each for each in paragraphs)
