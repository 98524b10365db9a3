"""Elements of HTML and SVG as text. Every text is escaped: no name or error of a run can break a page.

The output is well-formed XML, too: a test reads it with an XML parser.
"""

from __future__ import annotations

import html
import re

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that neither HTML nor XML may hold."""


class Markup(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Returns a text as markup. A text that is markup already stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", text)))


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """Returns an element. `class_` is the attribute `class`, `font_size` is `font-size`; None is left out.

    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    >>> element("br")
    '<br/>'
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if not children and tag not in _NEVER_EMPTY:
        return Markup(f"<{tag}{given}/>")
    return Markup(f"<{tag}{given}>{''.join(escaped(child) for child in children)}</{tag}>")


_NEVER_EMPTY = {"td", "th", "p", "div", "section", "style", "span", "ul", "title"}
"""HTML reads `<td/>` as an element that was not closed."""


def joined(*parts: str) -> Markup:
    """Returns the parts as one piece of markup."""
    return Markup("".join(escaped(part) for part in parts))


def with_code(text: str) -> Markup:
    """Returns a text in which what stands between two backticks is code."""
    parts = text.split("`")
    return joined(*(element("code", part) if number % 2 else part for number, part in enumerate(parts)))


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
