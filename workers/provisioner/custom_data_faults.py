"""Why custom data could not be executed, as far as its first bytes tell. Pure.

The kernel answers "No such file or directory" for a script whose interpreter it cannot find, and a
shell that reads Windows line ends complains of commands that look right: neither names the cause.
"""

from __future__ import annotations

from collections.abc import Callable

_BOM = b"\xef\xbb\xbf"
# what the data begins with -> what it is
_FORMS: tuple[tuple[bytes, str], ...] = (
    (b"#cloud-config", "it is a cloud-config, which only cloud-init carries out"),
    (b"#include", "it is a list of URLs, which only cloud-init carries out"),
    (b"## template:", "it is a template, which only cloud-init carries out"),
    (b"Content-Type: multipart/", "it is a MIME archive, which only cloud-init carries out"),
    (b"MIME-Version:", "it is a MIME archive, which only cloud-init carries out"),
    (b'{"ignition"', "it is a configuration of Ignition"),
    (b"\x1f\x8b", "it is compressed with gzip, send it as it is"),
    (b"PK\x03\x04", "it is a zip archive"),
    (b"\xff\xfe", "it is encoded as UTF-16, save it as UTF-8"),
    (b"\xfe\xff", "it is encoded as UTF-16, save it as UTF-8"),
)


def cause_of_failure(data: bytes, exists: Callable[[str], bool]) -> str:
    """The cause in a few words, empty when nothing is to be seen; ``exists`` says whether there is
    a program of that path.
    """
    if data.startswith(_BOM):
        return "it begins with a byte order mark, save it as UTF-8 without one"
    for start, what in _FORMS:
        if data.startswith(start):
            return what
    first = data.partition(b"\n")[0]
    if b"\n" not in data and b"\r" in data[:-1]:
        return "its lines end with CR, save it with LF"
    if b"\r\n" in data or first.endswith(b"\r"):
        return "its lines end with CR LF as on Windows, save it with LF"
    if data[:1] in (b" ", b"\t", b"\n") and data.lstrip().startswith(b"#!"):
        return "white space stands before `#!`, which must be the first two characters"
    if first.startswith(b"#!"):
        words = first[2:].decode("utf-8", "replace").split()
        if not words:
            return "its first line names no interpreter"
        if not exists(words[0]):
            return f"its interpreter {words[0][:100]} is not installed"
    elif b"\0" in data:
        return "it is no script but binary data"
    return ""
