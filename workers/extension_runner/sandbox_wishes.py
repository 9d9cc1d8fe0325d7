"""What a package's manifest or an operator's file asks of a handler's sandbox. Pure.

`HandlerManifest.json`, top level:
`"sandbox": {"profile": "strict", "writePaths": ["/opt/x"], "capabilities": ["CHOWN"],
"network": true}`;
`/etc/waagent/sandbox.d/<Name>.conf` has the same four as `Profile`, `WritePaths`, `Capabilities`,
`Network` and is stronger, key by key. A wish that is not understood is an error: the handler then
does not run, since it must never run wider than somebody asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waagent.distro.fences.capabilities import CAPABILITIES
from waagent.protocol.base.records import Record

DEFAULT, STRICT = "default", "strict"
_NEVER_WRITABLE = ("/", "/proc", "/sys", "/dev", "/run")
_YES, _NO = ("y", "yes", "on", "true", "1"), ("n", "no", "off", "false", "0")
PATHS_LIMIT = 64


class WishError(ValueError):
    """A wish that is not understood; the text says why, without a place."""


class Wish(Record):
    """What somebody asks for; None where nothing was said."""

    profile: str | None = None
    write_paths: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    """Without ``CAP_``, in capitals."""
    network: bool | None = None


def read_wish(said: Mapping[str, Any]) -> Wish:
    """The wish of a manifest's `sandbox` object. Raises WishError."""
    if not isinstance(said, Mapping):
        raise WishError("sandbox is no object")
    wish = Wish()
    for key, value in said.items():
        folded = str(key).lower()
        if folded in ("writepaths", "capabilities"):
            is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not is_list:
                raise WishError(f"sandbox.{str(key)[:40]} is no list of texts")
            wish = with_words(wish, folded, value)
        elif folded == "network" and isinstance(value, bool):
            wish = wish._replace(network=value)
        elif folded == "profile" and isinstance(value, str):
            wish = with_words(wish, folded, [value])
        else:
            raise WishError(f"sandbox.{str(key)[:40]} is not understood")
    return wish


def with_words(wish: Wish, key: str, words: Sequence[str]) -> Wish:
    """``wish`` and one key (in lower case) more. Raises WishError."""
    if key == "writepaths":
        return wish._replace(write_paths=tuple(map(_write_path, words[:PATHS_LIMIT])))
    if key == "capabilities":
        return wish._replace(capabilities=tuple(_capability(word) for word in words))
    word = words[0].lower() if len(words) == 1 else ""
    if key == "profile" and word in (DEFAULT, STRICT):
        return wish._replace(profile=word)
    if key == "network" and word in (*_YES, *_NO):
        return wish._replace(network=word in _YES)
    raise WishError("is default or strict" if key == "profile" else "is y or n")


def together(stronger: Wish, weaker: Wish) -> Wish:
    """Key by key what the first says, else the second. Raises WishError when a restriction is asked
    for that no profile enforces.
    """
    said = {key: value for key, value in stronger._asdict().items() if value is not None}
    wish = weaker._replace(**said)
    if (wish.profile or DEFAULT) == DEFAULT and wish[1:] != (None, None, None):
        if stronger.profile == DEFAULT and stronger[1:] == (None, None, None):
            return Wish(DEFAULT)  # an operator switches the manifest's sandbox off
        raise WishError("WritePaths, Capabilities and Network need Profile=strict")
    return wish


def _write_path(path: str) -> str:
    plain = "/" + path.strip("/")
    parts = plain.split("/")[1:]
    is_whole = path.startswith("/") and not {"", ".", ".."} & set(parts)
    is_allowed = plain not in _NEVER_WRITABLE and parts[0] not in ("proc", "sys", "dev")
    if not is_whole or not is_allowed or not path.isprintable():
        raise WishError(f"{ascii(path[:80])} can be no writable path")
    return plain


def _capability(word: str) -> str:
    plain = word.upper()
    plain = plain[4:] if plain.startswith("CAP_") else plain
    if plain not in CAPABILITIES:
        raise WishError(f"{ascii(word[:40])} is no capability")
    return plain
