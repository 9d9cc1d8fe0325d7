"""Numbers and names of the platform's protocols (spec: wire §0, §2.1, §3.1, §7.3)."""

from __future__ import annotations

WIRESERVER = "168.63.129.16"
"""Where the WireServer is unless DHCP (option 245) says otherwise; the same in every region."""
WIRE_PORT = 80
HOSTPLUGIN_PORT = 32526
METADATA_ADDRESS, METADATA_PORT = "169.254.169.254", 80
PROTOCOL_VERSION = "2012-11-30"
HOSTPLUGIN_VERSION = "2015-09-01"
STORAGE_VERSION = "2014-02-14"
AGENT_NAME = "WALinuxAgent"  # the platform knows no other; cloud-init sends the same

# spelling matters: one has a slash before the question mark, the others have none
VERSIONS_PATH = "/?comp=versions"
GOAL_STATE_PATH = "/machine/?comp=goalstate"
HEALTH_PATH = "/machine?comp=health"
PROPERTIES_PATH = "/machine?comp=roleProperties"
TELEMETRY_PATH = "/machine?comp=telemetrydata"
HEALTH_SERVICE_PATH = "/HealthService"
STATUS_PATH = "/status"
VM_SETTINGS_PATH = "/vmSettings"
PLUGIN_VERSIONS_PATH = "/versions"
PLUGIN_HEALTH_PATH = "/health"
AGENT_LOG_PATH = "/vmAgentLog"
METADATA_PATH = "/metadata/instance?api-version=2018-02-01"
ARTIFACT_PATH = "/extensionArtifact"

MIB = 1024 * 1024
VERSIONS_LIMIT_BYTES = 64 * 1024
GOAL_STATE_LIMIT_BYTES = MIB
EXTENSIONS_LIMIT_BYTES = 16 * MIB
CERTIFICATES_LIMIT_BYTES = 4 * MIB
SMALL_CONFIG_LIMIT_BYTES = 4 * MIB
"""HostingEnvironmentConfig and SharedConfig."""
MANIFEST_LIMIT_BYTES = 8 * MIB
PACKAGE_LIMIT_BYTES = 512 * MIB
ANSWER_LIMIT_BYTES = 64 * 1024
"""Answers whose content nobody needs (health, status)."""

CIPHERS = ("AES128_CBC", "DES_EDE3_CBC")  # in the order in which they are asked for

HEALTH_DESCRIPTION_LIMIT_BYTES = 4000  # the server takes 4096
BLOCK_BLOB, PAGE_BLOB = "BlockBlob", "PageBlob"
PAGE_BYTES = 512
PAGE_WRITE_BYTES = 4 * MIB
OK_STATUSES = frozenset({200, 201, 202})
GONE = 410
