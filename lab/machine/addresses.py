"""The addresses of a machine's small network."""

from __future__ import annotations

from waagent.lab.fabric.values import STORAGE_HOST
from waagent.protocol.wire import constants

ENDPOINT = constants.WIRESERVER
METADATA = constants.METADATA_ADDRESS
STORAGE = "203.0.113.10"
STORAGE_NAME = STORAGE_HOST
GATEWAY = "10.4.0.1"
VM = "10.4.0.4"
MAC = "00:0d:3a:0a:0b:0c"
