"""One self-contained HTML page: a title, sections, tables. It loads nothing: no script, no font, no image.

It follows the light or dark scheme of its reader, is legible on a telephone, and prints in the light scheme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.cli.bench.markup import Markup, element, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIGHT = (
    "--paper:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#57606a;--rule:#d4d9df;--good:#116329;--bad:#b3261e;"
    "--mark:#e3edff;--c0:#6e7781;--c1:#1652d6;--c2:#c2410c;--c3:#15803d;--c4:#8b2fc9;--c5:#a16207;--c6:#0e7490;"
    "--c7:#be123c;--c8:#4d7c0f;--c9:#c026a3;--c10:#7c5a3c;--c11:#0f766e;--c12:#e07b00;--c13:#5b4bd6;"
)
_DARK = (
    "--paper:#0f1318;--card:#181e25;--ink:#e6e9ed;--soft:#a2acb8;--rule:#343d48;--good:#5fd08a;--bad:#ff8a80;"
    "--mark:#1b2d4f;--c0:#9aa4b0;--c1:#6ea8ff;--c2:#ff9a62;--c3:#5fd08a;--c4:#cf9bff;--c5:#e3c04f;--c6:#4fd0e7;"
    "--c7:#ff7f9f;--c8:#a8d65a;--c9:#ff8ae2;--c10:#cdab8a;--c11:#58d6c4;--c12:#ffb647;--c13:#a79bff;"
)
_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:16px 16px 48px;max-width:1360px;background:var(--paper);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6em;line-height:1.2;margin:.4em 0}
h2{font-size:1.2em;margin:2em 0 .5em;padding-top:.6em;border-top:1px solid var(--rule)}
h3{font-size:1em;margin:1.2em 0 .3em}
p,ul,dl{margin:.5em 0;max-width:76em}
ul{padding-left:1.3em}
a{color:var(--c1)}
code{font:.92em ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;margin:.6em 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px}
dt{color:var(--soft)} dd{margin:0}
.note,small{color:var(--soft)} small{font-size:.86em;white-space:nowrap}
.good{color:var(--good)} .bad{color:var(--bad);font-weight:600}
.wide{overflow-x:auto;margin:.5em 0}
@media(max-width:700px){.long th:first-child{min-width:44vw}}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:4px 0;overflow-wrap:anywhere}
th,td{padding:4px 10px 4px 8px;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600} thead th{color:var(--soft);vertical-align:bottom;font-size:.9em}
th:first-child,.text{text-align:left}
th:first-child{position:sticky;left:0;background:var(--paper);min-width:7em;padding-left:2px}
td{white-space:nowrap}
tbody th{font-weight:500} tr.strong th{font-weight:700}
tr.strong th,tr.strong td{background:var(--mark)}
.tiles{display:grid;align-items:start;
 grid-template-columns:repeat(auto-fill,minmax(min(100%,390px),1fr));gap:4px 28px}
.tables{display:flex;flex-wrap:wrap;align-items:start;gap:4px 40px}
.tables>.wide{max-width:100%}
figure{margin:.6em 0;min-width:0;break-inside:avoid}
figcaption{font-weight:600}
svg{display:block;width:100%;height:auto;max-width:520px}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;fill:var(--soft)}
svg text.axis{fill:var(--ink)}
.grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.line.strong{stroke-width:3} .line.dashed{stroke-dasharray:5 4}
.ring{fill:var(--paper);stroke-width:1.6}
.crowd .dot{opacity:0} .crowd .dot:hover{opacity:1}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:0 14px;padding:0;margin:2px 0;font-size:.88em}
.legend li{display:flex;align-items:center;gap:5px}
.legend li.strong{font-weight:600}
.key{width:22px;height:12px;flex:none}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,390px),1fr));gap:12px}
.card{break-inside:avoid;background:var(--card);
 border:1px solid var(--rule);border-radius:6px;padding:8px 12px}
.card h3{margin:0} .card p{margin:.25em 0;font-size:.93em}
"""
_PRINT = """
body{max-width:none;padding:0;font-size:10pt} nav{display:none}
.wide{overflow:visible} th,td{padding:1px 6px;font-size:8pt;line-height:1.25} th:first-child{position:static}
tr,caption{break-inside:avoid} h2,h3,caption,h2+.note{break-after:avoid}
.tiles,.cards{grid-template-columns:1fr 1fr;gap:4px 16px}
.tables{gap:4px 24px} .tables>.wide{break-inside:avoid}
"""


def page(title: str, head: Sequence[Markup], sections: Sequence[tuple[str, Sequence[Markup]]]) -> str:
    """Returns the whole page.

    Args:
        title: the title, also above the text.
        head: what stands above the first section.
        sections: titles with their content. A section without content is left out.
    """
    shown = [(f"s{number}", name, parts) for number, (name, parts) in enumerate(sections, 1) if parts]
    links = [element("a", name, href=f"#{key}") for key, name, _ in shown]
    body = [
        element("h1", title),
        *head,
        element("nav", *links) if len(links) > 2 else Markup(),
        *(element("section", element("h2", name), *parts, id=key) for key, name, parts in shown),
    ]
    top = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # The reader can rely on it: whatever a file of results holds, the browser loads nothing for it.
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        element("title", title),
        element("style", Markup(_style())),
    ]
    document = element("html", element("head", *top), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _style() -> str:
    colours = "".join(
        f".line.c{number},.ring.c{number}{{stroke:var(--c{number})}}.dot.c{number}{{fill:var(--c{number})}}"
        for number in range(14)
    )
    return (
        f":root{{color-scheme:light dark;{_LIGHT}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
        f"{_RULES}{colours}\n@media print{{{_PRINT}}}\n"
    )


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str | None = None,
    strong: frozenset[int] = frozenset(),
    texts: frozenset[int] = frozenset(),
    long: bool = False,
) -> Markup:
    """Returns a table that scrolls by itself if the page is too narrow for it.

    Args:
        heads: the titles of the columns.
        rows: the first cell of each is the title of the row.
        caption: above the table.
        strong: the numbers of rows that stand out, from 0.
        texts: the numbers of columns of text, which are set to the left.
        long: whether the titles of the rows are sentences.
    """
    body = []
    for row, (first, *others) in enumerate(rows):
        cells = [
            element("td", cell, class_="text" if number in texts else None)
            for number, cell in enumerate(others, 1)
        ]
        marked = "strong" if row in strong else None
        body.append(element("tr", element("th", first, scope="row"), *cells, class_=marked))
    head = element(
        "tr",
        *(
            element("th", each, scope="col", class_="text" if number in texts else None)
            for number, each in enumerate(heads)
        ),
    )
    titles = [element("caption", caption)] if caption else []
    inner = element("table", *titles, element("thead", head), element("tbody", *body))
    return element("div", inner, class_="wide long" if long else "wide")


def described(pairs: Sequence[tuple[str, str]]) -> Markup:
    """Returns a list of names and what each is."""
    return element("dl", *(joined(element("dt", name), element("dd", text)) for name, text in pairs))
