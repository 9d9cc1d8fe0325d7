"""What is said of a command that failed, in the words that people and the platform search for. Pure
(spec: extensions §3.10 ff).
"""

from __future__ import annotations

import re

from waagent.distro.operations.records import LOST, Kept, Observation, describe_end
from waagent.protocol.handler import handler_errors

TEXT_LIMIT = 4096
NOEXEC_HINT = "; the file system of the handler's folder is mounted noexec"

_URL_QUERY = re.compile(r"(https?://[^\s\"'<>?]{1,512})\?[^\s\"'<>]+", re.IGNORECASE)
_NAMED_SECRET = re.compile(
    r"\b(sig|password|passwd|accountkey|sharedaccesskey|protectedsettings)(\"?\s{0,4}[=:]\s{0,4})(\"[^\"\n]*\"?|[^\s&;,\"]+)",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def failure(
    operation: str, command: str, seen: Observation, *, is_noexec: bool = False
) -> tuple[int, str]:
    """Code and text for a command that did not succeed."""
    code = handler_errors.COMMAND_CODES[operation]
    if seen.state == LOST:
        code = handler_errors.UNKNOWN
        first = (
            "[ExtensionError] the shim was killed: how the command ended is not known, it is not"
            f" run again: {command}"
        )
    elif seen.error:
        first = f"[ExtensionError] Failed to launch '{command}': {seen.error}"
    elif seen.timed_out:
        code = handler_errors.TIME_LIMIT
        first = f"[ExtensionError] {describe_end(seen)}: {command}"
    else:
        first = f"[ExtensionOperationError] {describe_end(seen)}, {command}"
    if is_noexec and seen.exit_code == 126:
        first += NOEXEC_HINT
    first = redact(first)[: TEXT_LIMIT // 2]
    return code, first + "\n" + output_part(seen.stdout, seen.stderr, TEXT_LIMIT - len(first) - 1)


def output_part(stdout: Kept, stderr: Kept, limit: int = TEXT_LIMIT) -> str:
    """`[stdout]…[stderr]…` in at most ``limit`` characters; what one does not need the other
    gets.
    """
    (out, out_dropped), (err, err_dropped) = _readable(stdout, limit), _readable(stderr, limit)
    frame = "[stdout]\n{}\n\n[stderr]\n{}"
    room = limit - len(frame)
    half = room // 2
    out_room = max(half, room - len(err))
    err_room = max(half, room - len(out))
    return frame.format(ends(out, out_room, out_dropped), ends(err, err_room, err_dropped))


def ends(text: str, limit: int, dropped: int = 0) -> str:
    """Head and tail of ``text``, the tail longer, with a line that says how much is missing;
    ``dropped`` was so already.
    """
    if len(text) <= limit and not dropped:
        return text
    marker = f"\n[... {len(text) - limit + dropped} bytes dropped ...]\n"
    room = max(0, limit - len(marker))
    head = room // 3
    return text[:head] + marker + text[max(head, len(text) - (room - head)) :]


def _readable(output: Kept, limit: int) -> tuple[str, int]:
    """Enough of both ends to cut from after redaction, which must not run over megabytes; and how
    much is missing between them.
    """
    data, dropped = output.head + output.tail, output.dropped_bytes
    if len(data) > 6 * limit:
        dropped += len(data) - 6 * limit
        data = data[: 2 * limit] + data[-4 * limit :]
    return redact(plain(data)), dropped


def plain(data: bytes) -> str:
    """Readable text: invalid UTF-8 and control characters but newline and tab are escaped."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def redact(text: str) -> str:
    """``text`` without queries of URLs, passwords, signatures and private keys."""
    text = _PRIVATE_KEY.sub("<private key>", text)
    text = _URL_QUERY.sub(r"\1?<redacted>", text)
    return _NAMED_SECRET.sub(r"\1\2<redacted>", text)
