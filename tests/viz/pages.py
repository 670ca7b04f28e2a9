"""A page as a reader without eyes has it: tables, pictures with their words, and what it would load."""

from html.parser import HTMLParser

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Parses a whole page. `tables` by caption: rows of cells; `alts` of pictures and charts; `links`; `text`.

    `open` is empty where every tag is closed by its own.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.alts, self.ids = [], [], [], []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.text = ""
        self._cell, self._caption, self._rows = None, None, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "data", "xlink:href")]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if tag == "svg":
            self.alts.append(values.get("aria-label", ""))
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)
        elif tag == "caption":
            self._caption = self._cell
        elif tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data
