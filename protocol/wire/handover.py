"""Connections to the platform that environment_monitor makes and hands over to fabric_client: where
a firewall lets only root connect, netfilter looks at who made the socket, not at who writes to it.

One request a connection on the socket `connect` beside the bus (control.HANDOVER_SOCKET,
SOCK_SEQPACKET): connect {to}, answered by connected {} with one descriptor, or by refused {reason}.
``to`` is a name of PLACES; no address and no other port can be asked for.
"""

from __future__ import annotations

from waagent.protocol.wire import constants

CLIENT = "fabric_client"  # who may ask
PACKET_LIMIT_BYTES = 512
CONNECT_S = 5.0  # environment_monitor's attempt
ANSWER_S = 10.0  # fabric_client's patience: the attempt, and a start of environment_monitor

PLACES: dict[str, tuple[str, int]] = {
    # name -> address (empty: the endpoint that was found) and port
    "wireserver": ("", constants.WIRE_PORT),
    "hostplugin": ("", constants.HOSTPLUGIN_PORT),
    "metadata": (constants.METADATA_ADDRESS, constants.METADATA_PORT),
}
