"""The one XML reader: UTF-8 only, no document type, no entities, no network, limited in size, depth
and number of elements.

Loads lxml (9 MiB): only short-lived processes and one-shots import this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from waagent.protocol.base.input_errors import DocumentError

DEPTH_LIMIT = 32  # the deepest document of the platform has 9 levels
ELEMENTS_LIMIT = 200_000
_BOM = b"\xef\xbb\xbf"
_BEFORE_ROOT = re.compile(rb"(?:\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)

Element = etree._Element


def read_xml(data: bytes, where: str, *, limit_bytes: int, root: str | None = None) -> Element:
    """The root element of ``data``; a BOM is skipped, comments and processing instructions are
    dropped.

    ``where`` names the document in errors, ``root`` is the local name that the root must have.
    Raises DocumentError, whatever ``data`` is.
    """
    if len(data) > limit_bytes:
        raise DocumentError(f"{len(data)} bytes, the limit is {limit_bytes}", where)
    text = _utf8(data, where)
    _refuse_document_type(text, where)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        strip_cdata=True,
        recover=False,
    )
    try:
        element = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DocumentError(f"not well-formed XML ({_first_line(error)})", where) from error
    if element is None:
        raise DocumentError("no XML element", where)
    _refuse_odd_trees(element, where)
    if root is not None and local_name(element) != root:
        raise DocumentError(f"root element is {local_name(element)[:60]!r}, not {root!r}", where)
    return element


def _utf8(data: bytes, where: str) -> bytes:
    text = data[len(_BOM) :] if data.startswith(_BOM) else data
    text = text.strip(b" \t\r\n\0")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 at byte {error.start}", where) from error
    if not text.startswith(b"<"):
        raise DocumentError("not XML" if text else "empty", where)
    return text


def _refuse_document_type(text: bytes, where: str) -> None:
    match = _BEFORE_ROOT.match(text)
    if match is not None and text.startswith(b"<!", match.end()):
        raise DocumentError("has a document type (DTD), which the platform never sends", where)


def _refuse_odd_trees(element: Element, where: str) -> None:
    """Depth and number of elements; entity references can only have come from a document type."""
    if element.getroottree().docinfo.internalDTD is not None:
        raise DocumentError("has a document type (DTD), which the platform never sends", where)
    depth = seen = 0
    for event, item in etree.iterwalk(element, events=("start", "end")):
        if event == "end":
            depth -= 1
            continue
        depth += 1
        seen += 1
        if depth > DEPTH_LIMIT or seen > ELEMENTS_LIMIT:
            raise DocumentError(
                f"more than {DEPTH_LIMIT} levels or {ELEMENTS_LIMIT} elements", where
            )
        if not isinstance(item.tag, str):
            raise DocumentError("has an entity reference", where)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def local_name(element: Element) -> str:
    """The name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element | None, name: str) -> Iterator[Element]:
    """Children with that local name, in document order; none of an element that is missing."""
    return (inner for inner in (() if element is None else element) if local_name(inner) == name)


def child(element: Element | None, *path: str) -> Element | None:
    """The first element at that path below ``element``; None when a step is missing."""
    for name in path:
        element = next(children(element, name), None)
    return element


def text_of(element: Element | None) -> str:
    """Text and CDATA of the element itself, joined and stripped; empty when it is missing."""
    if element is None:
        return ""
    parts = [element.text or ""] + [inner.tail or "" for inner in element]
    return "".join(parts).strip()


def text_at(element: Element | None, *path: str) -> str:
    """``text_of`` the first element at that path."""
    return text_of(child(element, *path))


def attribute(element: Element | None, name: str) -> str:
    """The attribute, stripped; empty when it is missing."""
    if element is None:
        return ""
    return (element.get(name) or "").strip()
