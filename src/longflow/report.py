"""The report of a run: one HTML file that opens anywhere, for it asks for nothing outside itself."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

REFERENCE_DPI = 96  # CSS: one inch is 96 pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what it shows.

    Attributes:
        png: the bytes of a PNG. One that carries a resolution is a plot, shown at its physical size; one that does
            not is made of pixels that are data, and is never smoothed.
        caption: shown beneath, and read out in place of the picture.
    """

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        text: plain text; an empty line starts a new paragraph.
        pictures: shown in order.
        code: shown verbatim, such as the command that made the run.
    """

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    code: str = ""


def page(
    title: str,
    facts: Mapping[str, object],
    sections: Sequence[Section],
    *,
    lead: str = "",
    highlights: Mapping[str, object] | None = None,
) -> str:
    """Return a self-contained HTML document; all texts are plain and get escaped.

    Args:
        title: the run's name.
        facts: name -> value, shown as a table: model, data, sha256, sizes of the splits, parameters, convention ...
        sections: what follows, in order.
        lead: a sentence or two under the title.
        highlights: the few numbers that matter most, name -> value, shown large.
    """
    contents = [
        _header(title, lead, highlights or {}),
        _contents(sections),
        "<main>",
        _facts(facts),
        *(_section(number, section) for number, section in enumerate(sections, start=1)),
        "</main>",
    ]
    body = "\n".join(part for part in contents if part)
    return _DOCUMENT.format(title=escape(title), style=_STYLE, body=body)


def _header(title: str, lead: str, highlights: Mapping[str, object]) -> str:
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    large = f'<dl class="highlights">{_pairs(highlights)}</dl>' if highlights else ""
    return f'<header>\n<p class="mark">longflow</p>\n<h1>{escape(title)}</h1>\n{intro}\n{large}\n</header>'


def _contents(sections: Sequence[Section]) -> str:
    """Return links to the sections, where there are enough of them to get lost."""
    links = "".join(
        f'<li><a href="#s{number}">{escape(section.title)}</a></li>' for number, section in enumerate(sections, start=1)
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(sections) > 2 else ""


def _facts(facts: Mapping[str, object]) -> str:
    return f'<dl class="facts">{_pairs(facts)}</dl>' if facts else ""


def _pairs(items: Mapping[str, object]) -> str:
    return "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>" for name, value in items.items()
    )


def _section(number: int, section: Section) -> str:
    parts = [f'<section id="s{number}">', f"<h2>{escape(section.title)}</h2>", *_paragraphs(section.text)]
    if section.pictures:
        parts += ['<div class="pictures">', *map(_figure, section.pictures), "</div>"]
    if section.code:
        parts.append(f'<pre tabindex="0"><code>{escape(section.code)}</code></pre>')
    return "\n".join([*parts, "</section>"])


def _paragraphs(text: str) -> Iterable[str]:
    return (f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def _figure(picture: Picture) -> str:
    with Image.open(io.BytesIO(picture.png)) as image:
        (width, height), dpi = image.size, image.info.get("dpi")
    kind, ratio = ("pixels", 1.0) if dpi is None else ("plot", REFERENCE_DPI / dpi[0])
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" width="{round(width * ratio)}"'
        f' height="{round(height * ratio)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


# The policy makes "asks for nothing" a promise that the browser keeps, whatever a text should contain.
_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
:root {
  --page: #fbfbfa; --card: #ffffff; --ink: #1f2430; --muted: #646c7a; --line: #e4e6eb; --accent: #2a5f9e;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1b1e24; --ink: #e6e8ec; --muted: #98a0ad; --line: #2c313a; --accent: #8fbbe8;
  }
  /* A plot is dark on white: turned around it sits in the page, its hues kept. Pixels are data: left alone. */
  .plot img { filter: invert(1) hue-rotate(180deg) contrast(.9); mix-blend-mode: lighten; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; max-width: 62rem; padding: clamp(1.5rem, 6vw, 5rem) clamp(1rem, 4vw, 2.5rem);
  background: var(--page); color: var(--ink); font: 1rem/1.6 var(--sans); font-variant-numeric: tabular-nums;
}
h1, h2 { line-height: 1.2; font-weight: 650; letter-spacing: -.015em; overflow-wrap: anywhere; text-wrap: balance; }
h1 { margin: 0; font-size: clamp(1.9rem, 1.3rem + 2.6vw, 3rem); }
h2 { margin: 0 0 .75rem; font-size: 1.35rem; }
p { margin: 0 0 1rem; max-width: 44rem; overflow-wrap: anywhere; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; text-underline-offset: .2em; }
.mark { margin: 0 0 .5rem; color: var(--accent); font-weight: 600; font-size: .875rem; letter-spacing: .04em; }
.lead { margin: 1rem 0 0; color: var(--muted); font-size: 1.125rem; }
dl, dd { margin: 0; }
dt { color: var(--muted); font-size: .875rem; }
dd { overflow-wrap: anywhere; }
.highlights { display: flex; flex-wrap: wrap; gap: 1.25rem 3rem; margin-top: 2rem; }
.highlights dd { font-size: 1.5rem; font-weight: 600; letter-spacing: -.01em; line-height: 1.3; }
nav { margin-top: 2.5rem; padding: .75rem 0; border-block: 1px solid var(--line); font-size: .9375rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0; padding: 0; list-style: none; }
main { margin-top: 2.5rem; }
.facts div {
  display: grid; grid-template-columns: minmax(7rem, 13rem) 1fr; gap: 0 1.5rem;
  padding: .5rem 0; border-bottom: 1px solid var(--line);
}
.facts dt { padding-top: .1rem; }
section { margin-top: 4rem; scroll-margin-top: 1.5rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem; margin-top: 1.5rem; }
figure {
  flex: 1 1 auto; margin: 0; padding: 1.25rem; max-width: 100%; background: var(--card);
  border: 1px solid var(--line); border-radius: .75rem;
}
img { display: block; margin-inline: auto; max-width: 100%; height: auto; }
/* Dropping pixels would falsify a picture that is wider than the screen: it scrolls. */
.pixels { overflow-x: auto; }
.pixels img { max-width: none; image-rendering: pixelated; }
/* A width of zero that fills: a long caption wraps under its picture and never widens it. */
figcaption {
  position: sticky; left: 0; width: 0; min-width: 100%;
  margin-top: .9rem; color: var(--muted); font-size: .875rem; line-height: 1.5;
}
pre {
  margin: 1.5rem 0 0; padding: 1rem 1.25rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: .75rem;
}
code { font: .875rem/1.6 var(--mono); }
@media (max-width: 34rem) {
  .facts div { grid-template-columns: 1fr; }
  figure { padding: .75rem; }
  section { margin-top: 3rem; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav { display: none; }
  figure { break-inside: avoid; }
  pre { white-space: pre-wrap; }
}
"""
