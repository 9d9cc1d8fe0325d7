"""The platform's `ovf-env.xml`, made from what a customer asks for (spec: provisioning §3)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from xml.sax.saxutils import escape

OVF = "http://schemas.dmtf.org/ovf/environment/1"
WA = "http://schemas.microsoft.com/windowsazure"
XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(frozen=True)
class Order:
    """What a customer asks for when creating a VM."""

    host_name: str = "tern-07"
    user_name: str = "azureuser"
    public_keys: tuple[str, ...] = ()
    """OpenSSH lines."""
    fingerprints: tuple[str, ...] = ()
    """Public keys that come as certificates in the goal state instead: thumbprints."""
    key_paths: tuple[str, ...] = ()
    """Paths of the first public keys; the others have the usual one."""
    key_pairs: tuple[tuple[str, str], ...] = ()
    """Thumbprints of certificates whose key the user shall have, and where."""
    password: str = ""
    disable_password_authentication: bool | None = True
    """None: the element is absent."""
    custom_data: bytes = b""
    preprovisioned: bool = False
    with_platform_settings: bool = True


def ovf_env(order: Order) -> bytes:
    """The document, UTF-8."""
    path = f"/home/{order.user_name}/.ssh/authorized_keys"
    paths = [*order.key_paths, *(path for _ in order.public_keys)]
    keys = [
        f"<PublicKey><Path>{escape(place)}</Path><Value>{escape(line)}</Value></PublicKey>"
        for place, line in zip(paths, order.public_keys)
    ]
    keys += [
        f"<PublicKey><Fingerprint>{text}</Fingerprint><Path>{path}</Path></PublicKey>"
        for text in order.fingerprints
    ]
    lines = [
        "<ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>",
        f"<HostName>{escape(order.host_name)}</HostName>",
        f"<UserName>{escape(order.user_name)}</UserName>",
        f"<UserPassword>{escape(order.password)}</UserPassword>" if order.password else "",
        _boolean("DisableSshPasswordAuthentication", order.disable_password_authentication),
        _ssh(keys, order.key_pairs),
        (
            f"<CustomData>{base64.b64encode(order.custom_data).decode()}</CustomData>"
            if order.custom_data
            else ""
        ),
    ]
    wanted = "\n      ".join(line for line in lines if line)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="{OVF}" xmlns:wa="{WA}" xmlns:xsi="{XSI}">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="{WA}" xmlns:i="{XSI}">
      {wanted}
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
{_platform_settings(order)}</Environment>
""".encode()


def _ssh(keys: list[str], pairs: tuple[tuple[str, str], ...]) -> str:
    both = "".join(
        f"<KeyPair><Fingerprint>{text}</Fingerprint><Path>{escape(path)}</Path></KeyPair>"
        for text, path in pairs
    )
    if not keys and not pairs:
        return ""
    return f"<SSH><PublicKeys>{''.join(keys)}</PublicKeys><KeyPairs>{both}</KeyPairs></SSH>"


def _boolean(tag: str, value: bool | None) -> str:
    return "" if value is None else f"<{tag}>{str(value).lower()}</{tag}>"


def _platform_settings(order: Order) -> str:
    if not order.with_platform_settings:
        return ""
    return f"""  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:KmsServerHostname>kms.core.windows.net</wa:KmsServerHostname>
      <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>
      <wa:GuestAgentPackageName xsi:nil="true"/>
      <wa:PreprovisionedVm>{str(order.preprovisioned).lower()}</wa:PreprovisionedVm>
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
"""
