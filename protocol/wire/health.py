"""The bodies of health report and role properties (spec: wire §2.9, §2.10)."""

from __future__ import annotations

from waagent.protocol.wire.constants import HEALTH_DESCRIPTION_LIMIT_BYTES

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str, limit_bytes: int | None = None) -> str:
    """``text`` for XML 1.0: illegal characters dropped, the rest escaped, whole characters up to
    ``limit_bytes`` of UTF-8.
    """
    taken: list[str] = []
    size_bytes = 0
    for character in text:
        if not _is_legal(character):
            continue
        piece = _ESCAPES.get(character, character)
        size_bytes += len(piece.encode("utf-8"))
        if limit_bytes is not None and size_bytes > limit_bytes:
            break
        taken.append(piece)
    return "".join(taken)


def _is_legal(character: str) -> bool:
    return (
        character >= " "
        and not "\ud800" <= character <= "\udfff"
        and character not in "\ufffe\uffff"
        or character in "\t\n\r"
    )


def health_report(
    incarnation: str,
    container_id: str,
    instance_id: str,
    state: str,
    substatus: str = "",
    description: str = "",
) -> bytes:
    """The POST body; ``Details`` only when there is a sub-status. The element is `Role` here, not
    `RoleInstance`.
    """
    details = ""
    if substatus:
        told = escape(description, HEALTH_DESCRIPTION_LIMIT_BYTES)
        details = (
            f"<Details><SubStatus>{escape(substatus)}</SubStatus>"
            f"<Description>{told}</Description></Details>"
        )
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xmlns:xsd="http://www.w3.org/2001/XMLSchema">'
        f"<GoalStateIncarnation>{escape(incarnation)}</GoalStateIncarnation>"
        f"<Container><ContainerId>{escape(container_id)}</ContainerId>"
        f"<RoleInstanceList><Role><InstanceId>{escape(instance_id)}</InstanceId>"
        f"<Health><State>{escape(state)}</State>{details}</Health>"
        "</Role></RoleInstanceList></Container></Health>"
    ).encode()


def role_properties(container_id: str, instance_id: str, fingerprint: str) -> bytes:
    """The POST body that tells the host key's fingerprint."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<RoleProperties><Container><ContainerId>{escape(container_id)}</ContainerId>"
        f"<RoleInstances><RoleInstance><Id>{escape(instance_id)}</Id>"
        f'<Properties><Property name="CertificateThumbprint" value="{escape(fingerprint)}" />'
        "</Properties></RoleInstance></RoleInstances></Container></RoleProperties>"
    ).encode()
