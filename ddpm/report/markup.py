"""Pieces of HTML. Arguments are plain text and escaped here, but for those that are called `inner`."""

import base64
import json
from collections.abc import Collection
from html import escape


def element(name: str, inner: str = "", **attributes) -> str:
    """<name attributes>inner</name>; of attributes, None and False are left out, `_` stands for `-`."""
    written = "".join(
        f" {key.strip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return f"<{name}{written}>{inner}</{name}>"


def values(pairs: dict, unused: Collection[str] = ()) -> str:
    """Names and values, a line each; those of `unused` in italics."""
    lines = (
        element(
            "tr",
            element("th", escape(name)) + element("td", escape("none" if value is None else text(value))),
            class_="unused" * (name in unused),
        )
        for name, value in pairs.items()
    )
    return element("table", "".join(lines), class_="values")


def text(value) -> str:
    """A value in words: whole numbers with commas, others with four digits, what is not there as nothing."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def picture(content: bytes, caption: str) -> str:
    """An image, its bytes inlined, with a caption."""
    kind = "gif" if content.startswith(b"GIF") else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return element("figure", f'<img src="{source}" alt="{escape(caption)}">' + element("figcaption", escape(caption)))


def select(label: str, options: dict[int, str], **attributes) -> str:
    """A drop-down; options by their values."""
    inner = "".join(element("option", escape(option), value=i) for i, option in options.items())
    return element("label", escape(label) + element("select", inner, **attributes))


def cell(value, inner: str | None = None, *, head: bool = False, **attributes) -> str:
    """A cell of a sorted table, sorted by its value."""
    word = isinstance(value, (str, bool, list))
    plain = json.dumps(value) if isinstance(value, list) else "" if value is None else str(value)
    shown = escape(text(value)) if inner is None else inner
    classes = f"{'word ' * word}{attributes.pop('class_', '')}".strip()
    return element("th" if head else "td", shown, data_value=plain, class_=classes or None, **attributes)


def sorted_table(heads: list[str], rows: list[list[str]], groups: list[tuple[str, int, str | None]] = ()) -> str:
    """A table that a click on a heading sorts.

    Args:
      heads: headings.
      rows: cells, made by `cell`.
      groups: headings over several columns: (heading, number of columns, what is shown on hover, as for `tip`).
    """
    over = "".join(
        element("th", escape(head), colspan=span, scope="colgroup", **tip(at)) if head else element("td", colspan=span)
        for head, span, at in groups
    )
    under = "".join(element("th", element("button", escape(head), type="button"), scope="col") for head in heads)
    top = element("thead", (element("tr", over) if groups else "") + element("tr", under))
    body = element("tbody", "".join(element("tr", "".join(row)) for row in rows))
    return element("div", element("table", top + body), class_="table", tabindex=0, role="region", aria_label="table")


class Tips:
    """What is shown on hover, each once."""

    def __init__(self):
        self._identities = {}

    def add(self, pairs: dict) -> str:
        """The identity of names and values, for `tip`."""
        return self._identities.setdefault(values(pairs), f"tip{len(self._identities)}")

    def templates(self) -> str:
        """All of them, as HTML that is not shown itself."""
        return "".join(element("template", inner, id=identity) for inner, identity in self._identities.items())


def tip(identity: str | None) -> dict:
    """Attributes of what shows these names and values on hover, keyboard focus or a tap."""
    return {"data_tip": identity, "tabindex": 0, "aria_describedby": "tip"} if identity else {}
