"""A drawing of matplotlib made fit to stand inside a page: small, without styles, in the page's own colours.

Pure: text → text.  Colours of `PALETTE` become classes that the page's style sheet gives a colour, light or dark;
style attributes become plain ones, since the style element that comes with a drawing would reach the whole page.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

PALETTE = {
    "baseline": "#0000f1",
    "candidate": "#0000f2",
    "text": "#0000f3",
    "line": "#0000f4",
    "budget": "#0000f5",
    "weights": "#0000e1",
    "activations": "#0000e2",
    "kv_cache": "#0000e3",
    "context": "#0000e4",
    "unused": "#0000e5",
}
"""What is drawn → the colour that stands for it until it is placed in a page; no eye ever sees these."""

_NAMES = {colour: name for name, colour in PALETTE.items()}
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")
_KEPT_STYLES = ("stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "stroke-opacity", "text-anchor")
_KEPT = ("x", "y", "d", "transform", "width", "height", "points")
_DROPPED = ("metadata", "style")


def placed(drawing: str, *, key: str, label: str) -> str:
    """`drawing` as an element of an HTML page; `key` keeps its ids apart from those of others, `label` says it all."""
    root = ET.fromstring(drawing)
    width, height = root.attrib["viewBox"].split()[2:]
    referred = {found for e in root.iter() for value in e.attrib.values() for found in _REFERENCE.findall(value)}
    inside = "".join(part for child in root for part in _written(child, key, referred & _ids(root)))
    size = f'viewBox="0 0 {_rounded(width)} {_rounded(height)}" width="{_rounded(width)}" height="{_rounded(height)}"'
    return f'<svg class="chart" {size} role="img" aria-label={quoteattr(label)}>{inside}</svg>'


def _ids(root: ET.Element) -> set[str]:
    return {e.attrib["id"] for e in root.iter() if "id" in e.attrib}


def _written(element: ET.Element, key: str, referred: set[str]) -> Iterator[str]:
    tag = element.tag.rpartition("}")[2]
    attributes = _attributes(element, key, referred)
    if tag in _DROPPED or (tag == "path" and attributes.get("fill") == "none" and "class" not in attributes):
        return
    children = "".join(part for child in element for part in _written(child, key, referred))
    text = escape((element.text or "").strip())
    if tag in ("g", "defs") and not children:
        return
    if tag == "g" and not attributes:
        yield children
        return
    written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    yield f"<{tag}{written}>{text}{children}</{tag}>" if text or children else f"<{tag}{written}/>"


def _attributes(element: ET.Element, key: str, referred: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in element.attrib.items():
        bare = name.rpartition("}")[2]
        if bare == "id" and value in referred:
            found["id"] = f"{key}-{value}"
        elif bare == "href":
            found["href"] = _REFERENCE.sub(rf"#{key}-\1", value)
        elif bare == "clip-path":
            found["clip-path"] = _REFERENCE.sub(rf"#{key}-\1", value)
        elif bare in _KEPT and not value.startswith("rotate(-0 "):
            found[bare] = " ".join(_rounded(value).split())
    return found | _styled(element.attrib.get("style", ""))


def _styled(style: str) -> dict[str, str]:
    """Colours as classes: `f-` for what is filled, `k-` for what is drawn as a line."""
    said = dict(part.strip().split(": ", 1) for part in style.split(";") if ": " in part)
    found = {name: _rounded(said[name]) for name in _KEPT_STYLES if name in said}
    classes = []
    for name, prefix in (("fill", "f-"), ("stroke", "k-")):
        colour = said.get(name)
        if colour in _NAMES:
            classes.append(prefix + _NAMES[colour])
        elif colour is not None and (name, colour) != ("stroke", "none"):
            found[name] = colour
    size = re.search(r"([\d.]+)px", said.get("font-size", said.get("font", "")))
    if size is not None:
        found["font-size"] = _rounded(size[1])
    return found | ({"class": " ".join(classes)} if classes else {})


def _rounded(text: str) -> str:
    """To a tenth of a pixel."""
    return _NUMBER.sub(lambda found: f"{round(float(found[0]), 1) + 0.0:g}", text)
