"""Pages as a browser reads them: elements in order, with their text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = {"meta", "img", "br", "link", "input"}


@dataclass
class Element:
    """A tag with its attributes, and everything in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def text(self):
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def every(self, *tags):
        """The elements in this one that have one of some tags, or all."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if not tags or child.tag in tags else []
                found += child.every(*tags)
        return found


class Reader(HTMLParser):
    """Makes elements; an end tag that does not close the last open one is an error."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {key: value or "" for key, value in attrs})
        assert len(element.attributes) == len(attrs), f"<{tag}> has an attribute twice"
        self.open[-1].children.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data.replace("\N{SOFT HYPHEN}", ""))


def read(text):
    """The root of a page, all of whose elements are closed."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"{reader.open[-1].tag} is not closed"
    return reader.root


def table_of(root, title):
    """The cells of the table whose caption begins with a title."""
    table, = (one for one in root.every("table") if one.every("caption")[0].text().startswith(title))
    return [[cell.text().strip() for cell in row.every("th", "td")] for row in table.every("tr")]
