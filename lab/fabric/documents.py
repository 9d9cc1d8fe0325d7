"""The documents of the WireServer, made from what the platform knows of the VM. Pure text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from waagent.lab.fabric.values import (
    PROTOCOL_VERSION,
    SAS,
    STORAGE_HOST,
    Extension,
    GaFamily,
    Settings,
    VirtualMachine,
)

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'

Protect = Callable[[Any], tuple[str, str]]
"""protected settings -> (base64 CMS, thumbprint)"""


BlobUrl = Callable[[str], str]
"""path of a blob -> its URL"""


def blob_url(path: str, scheme: str = "https", host: str = STORAGE_HOST) -> str:
    """The full URL of a blob, SAS included; ``path`` starts with a slash."""
    return f"{scheme}://{host}{path}?{SAS}"


def manifest_path(extension: Extension) -> str:
    """Where a handler's publisher manifest lies in the storage."""
    return f"/packages/{extension.name}_manifest.xml"


def manifest_paths(extension: Extension) -> list[str]:
    """All its places: location, failoverlocation, additional locations."""
    others = [f"/{number + 1}/packages" for number in range(1 + extension.additional_locations)]
    name = f"{extension.name}_manifest.xml"
    return [manifest_path(extension), *(f"{folder}/{name}" for folder in others)]


def package_path(extension: Extension, version: str | None = None) -> str:
    """Where the package of one version lies in the storage."""
    return f"/packages/{extension.name}__{version or extension.version}"


STATUS_PATH = "/$system/vm1.status"
PROFILE_PATH = "/$system/vm1.vmSettings"
ACTIVITY_ID = "0b6f2f64-0000-4000-8000-00000000000a"
CORRELATION_ID = "0b6f2f64-0000-4000-8000-00000000000b"


def agent_manifest_paths(family: GaFamily) -> list[str]:
    """Where the manifest of a family of agents lies."""
    return [
        f"/agents-{number + 1}/{family.name}_manifest.xml" for number in range(family.manifests)
    ]


def versions(vm: VirtualMachine) -> str:
    """The versions document."""
    supported = "".join(f"<Version>{escape(version)}</Version>" for version in vm.versions)
    preferred = f"<Preferred><Version>{escape(vm.versions[0])}</Version></Preferred>"
    return f"{_HEAD}<Versions>{preferred}<Supported>{supported}</Supported></Versions>"


def goal_state(vm: VirtualMachine, base: str) -> str:
    """The goal state document; ``base`` is `http://ADDRESS:PORT`."""
    ports = "".join(f"<Port>{port}</Port>" for port in vm.probe_ports)
    instance = _role_instance(vm, base) if vm.with_role_instance else ""
    access = ""
    if vm.remote_users is not None:
        access = f"\n    <RemoteAccessInfo>{base}{escape(remote_access_target(vm))}\n    </RemoteAccessInfo>"
    return f"""{_HEAD}<GoalState {_XSI} xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>{PROTOCOL_VERSION}</Version>
  <Incarnation>{vm.incarnation}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
    <LBProbePorts>{ports}</LBProbePorts>
    <ExpectHealthReport>FALSE</ExpectHealthReport>
  </Machine>
  <Container>
    <ContainerId>{vm.container_id}</ContainerId>{access}
    <RoleInstanceList>{instance}</RoleInstanceList>
  </Container>
</GoalState>"""


def document_targets(vm: VirtualMachine) -> dict[str, str]:
    """The request target of each document that the goal state names, by its element, byte for byte
    as it must be asked for.
    """
    folder = f"/machine/{vm.container_id}/{vm.instance_id}".replace("_", "%5F").replace("-", "%2D")
    kinds = {
        "HostingEnvironmentConfig": "hostingEnvironmentConfig",
        "SharedConfig": "sharedConfig",
        "ExtensionsConfig": "extensionsConfig",
        "FullConfig": "fullConfig",
    }
    made = {
        tag: f"{folder}?comp=config&type={kind}&incarnation={vm.incarnation}"
        for tag, kind in kinds.items()
    }
    return {**made, "Certificates": f"{folder}?comp=certificates&incarnation={vm.incarnation}"}


def remote_access_target(vm: VirtualMachine) -> str:
    """The request target of the RemoteAccess document."""
    folder = f"/machine/{vm.container_id}".replace("-", "%2D")
    return f"{folder}/jit?comp=remoteaccess&incarnation={vm.incarnation}"


def _role_instance(vm: VirtualMachine, base: str) -> str:
    targets = document_targets(vm)
    if not vm.with_extensions_config:
        del targets["ExtensionsConfig"]
    if not vm.with_certificates:
        del targets["Certificates"]
    lines = [f"<{tag}>{base}{escape(target)}</{tag}>" for tag, target in targets.items()]
    if vm.config_name:
        lines.append(f"<ConfigName>{escape(vm.config_name)}</ConfigName>")
    text = "\n          ".join(lines)
    return f"""
      <RoleInstance>
        <InstanceId>{vm.instance_id}</InstanceId>
        <State>Started</State>
        <Configuration>
          {text}
        </Configuration>
      </RoleInstance>
    """


def hosting_environment(vm: VirtualMachine, thumbprint: str) -> str:
    """HostingEnvironmentConfig."""
    return f"""{_HEAD}<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <StoredCertificates>
    <StoredCertificate name="Stored0" certificateId="sha1:{thumbprint}" storeName="My" configurationLevel="System" />
  </StoredCertificates>
  <Deployment name="{vm.deployment}" guid="{{11111111-2222-4333-8444-000000000001}}" incarnation="0"
              isNonCancellableTopologyChangeEnabled="false">
    <Service name="LabService" guid="{{00000000-0000-0000-0000-000000000000}}" />
    <ServiceInstance name="{vm.deployment}.0" guid="{{11111111-2222-4333-8444-000000000002}}" />
  </Deployment>
  <Incarnation number="1" instance="{vm.vm_name}" guid="{{11111111-2222-4333-8444-000000000003}}" />
  <Role guid="{{11111111-2222-4333-8444-000000000004}}" name="{vm.vm_name}" hostingEnvironmentVersion="1" settleTimeSeconds="0" />
  <HostingEnvironmentSettings name="full" />
  <ApplicationSettings />
  <ResourceReferences />
</HostingEnvironmentConfig>"""


def shared_config(vm: VirtualMachine) -> str:
    """SharedConfig."""
    return f"""{_HEAD}<SharedConfig version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <Deployment name="{vm.deployment}" guid="{{11111111-2222-4333-8444-000000000001}}" incarnation="0">
    <Service name="LabService" guid="{{00000000-0000-0000-0000-000000000000}}" />
    <ServiceInstance name="{vm.deployment}.0" guid="{{11111111-2222-4333-8444-000000000002}}" />
  </Deployment>
  <Incarnation number="1" instance="{vm.vm_name}" guid="{{11111111-2222-4333-8444-000000000003}}" />
  <Role guid="{{11111111-2222-4333-8444-000000000004}}" name="{vm.vm_name}" settleTimeSeconds="0" />
  <LoadBalancerSettings timeoutSeconds="32" waitLoadBalancerProbeCount="8"><Probes /></LoadBalancerSettings>
  <OutputEndpoints />
  <Instances>
    <Instance id="{vm.vm_name}" address="10.4.0.4">
      <FaultDomains randomId="1" updateId="0" updateCount="0" /><InputEndpoints />
    </Instance>
  </Instances>
</SharedConfig>"""


def certificates(vm: VirtualMachine, data: str) -> str:
    """CertificateFile around base64 ``data``."""
    return f"""{_HEAD}<CertificateFile {_XSI} xsi:noNamespaceSchemaLocation="certificates10.xsd">
  <Version>{PROTOCOL_VERSION}</Version>
  <Incarnation>1</Incarnation>
  <Format>{escape(vm.certificate_format)}</Format>
  <Data>{data}</Data>
</CertificateFile>"""


def extensions_config(vm: VirtualMachine, protect: Protect, url_of: BlobUrl) -> str:
    """ExtensionsConfig."""
    features = "".join(
        f"<RequiredFeature><Name>{escape(name)}</Name></RequiredFeature>"
        for name in vm.required_features
    )
    families = "".join(_family(family, url_of) for family in vm.ga_families)
    plugins = "\n    ".join(_plugin(extension, url_of) for extension in vm.extensions)
    settings = "\n    ".join(
        _plugin_settings(extension, protect) for extension in vm.extensions if extension.settings
    )
    blob = profile = ""
    if vm.with_status_blob:
        kind, url = quoteattr(vm.status_blob_type), escape(url_of(STATUS_PATH))
        blob = f"<StatusUploadBlob statusBlobType={kind}>{url}</StatusUploadBlob>"
    if vm.on_hold is not None:
        url = escape(url_of(PROFILE_PATH))
        profile = f"<InVMArtifactsProfileBlob>{url}</InVMArtifactsProfileBlob>"
    return f"""{_HEAD}<Extensions version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
    <GAFamilies>{families}</GAFamilies>
    <Location>labwest</Location><ServiceName>CRP</ServiceName>
  </GuestAgentExtension>
  <RequiredFeatures>{features}</RequiredFeatures>
  {blob}
  <Plugins>
    {plugins}
  </Plugins>
  <PluginSettings>
    {settings}
  </PluginSettings>
  {profile}
  <InVMGoalStateMetaData inSvdSeqNo="{vm.incarnation}" createdOnTicks="{vm.created_on_ticks}"
      activityId="{ACTIVITY_ID}" correlationId="{CORRELATION_ID}" />
</Extensions>"""


def _family(family: GaFamily, url_of: BlobUrl) -> str:
    fields: tuple[tuple[str, str], ...] = (
        ("Version", family.version),
        ("FromVersion", family.from_version),
        ("IsVersionFromRSM", _boolean(family.is_version_from_rsm)),
        ("IsVMEnabledForRSMUpgrades", _boolean(family.is_enabled_for_rsm)),
    )
    inner = "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in fields if text)
    uris = "".join(f"<Uri>{escape(url_of(path))}</Uri>" for path in agent_manifest_paths(family))
    return f"<GAFamily><Name>{escape(family.name)}</Name>{inner}<Uris>{uris}</Uris></GAFamily>"


def _boolean(value: bool | None) -> str:
    return "" if value is None else str(value)


def _plugin(extension: Extension, url_of: BlobUrl) -> str:
    location, failover, *others = (quoteattr(url_of(path)) for path in manifest_paths(extension))
    signature = f" encodedSignature={quoteattr(extension.signature)}" if extension.signature else ""
    more = "".join(
        f"<additionalLocation>{escape(url_of(path))}</additionalLocation>"
        for path in manifest_paths(extension)[2:]
    )
    inner = f"<additionalLocations>{more}</additionalLocations>" if more else ""
    return (
        f"<Plugin name={quoteattr(extension.name)} version={quoteattr(extension.version)}"
        f" location={location}"
        f' failoverlocation={failover} config="" state={quoteattr(extension.state)}'
        ' autoUpgrade="false" runAsStartupTask="false" isJson="true" useExactVersion="true"'
        f"{signature}>{inner}</Plugin>"
    )


def _plugin_settings(extension: Extension, protect: Protect) -> str:
    inner = "".join(
        _runtime_settings(settings, extension.multi_config, protect)
        for settings in extension.settings
    )
    return (
        f"<Plugin name={quoteattr(extension.name)}"
        f" version={quoteattr(extension.version)}>{inner}</Plugin>"
    )


def _runtime_settings(settings: Settings, multi_config: bool, protect: Protect) -> str:
    handler_settings: dict[str, Any] = {"publicSettings": settings.public}
    if settings.protected is not None:
        protected, thumbprint = protect(settings.protected)
        handler_settings = {
            "protectedSettingsCertThumbprint": thumbprint,
            "protectedSettings": protected,
            **handler_settings,
        }
    text = escape(json.dumps({"runtimeSettings": [{"handlerSettings": handler_settings}]}))
    name = f" name={quoteattr(settings.name)}" if multi_config else ""
    wanted = "".join(_depends_on(item) for item in settings.depends_on)
    depends = ""
    if settings.depends_on or settings.dependency_level:
        depends = (
            f'<DependsOn dependencyLevel="{settings.dependency_level}"{name}>{wanted}</DependsOn>'
        )
    if multi_config:
        return (
            f'{depends}<ExtensionRuntimeSettings seqNo="{settings.sequence}"{name}'
            f" state={quoteattr(settings.state)}>{text}</ExtensionRuntimeSettings>"
        )
    return f'{depends}<RuntimeSettings seqNo="{settings.sequence}">{text}</RuntimeSettings>'


def _depends_on(item: str) -> str:
    handler, _, extension = item.partition("/")
    attribute = f" extension={quoteattr(extension)}" if extension else ""
    return f"<DependsOnExtension handler={quoteattr(handler)}{attribute} />"


def package_manifest(extension: Extension, versions_known: tuple[str, ...], url_of: BlobUrl) -> str:
    """The publisher manifest."""
    return _manifest(
        {version: url_of(package_path(extension, version)) for version in versions_known}
    )


def agent_manifest(family: GaFamily, versions_known: tuple[str, ...], url_of: BlobUrl) -> str:
    """The manifest of a family of agents."""
    return _manifest(
        {version: url_of(f"/agents-1/{family.name}__{version}") for version in versions_known}
    )


def _manifest(packages: Mapping[str, str]) -> str:
    plugins = "".join(
        f"<Plugin><Version>{escape(version)}</Version>"
        f"<Uris><Uri>{escape(url)}</Uri></Uris></Plugin>"
        for version, url in packages.items()
    )
    return (
        f"{_HEAD}<PluginVersionManifest"
        ' xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
        f"<Plugins>{plugins}</Plugins></PluginVersionManifest>"
    )


def remote_access(vm: VirtualMachine, encrypt: Callable[[str], str]) -> str:
    """RemoteAccess; ``encrypt`` gives a password as base64 CMS."""
    users = "".join(
        f"<User><Name>{escape(user.name)}</Name><Password>{encrypt(user.password)}</Password>"
        f"<Expiration>{escape(user.expires)}</Expiration>"
        "<Groups><GroupName>Administrators</GroupName></Groups></User>"
        for user in vm.remote_users or ()
    )
    return (
        f"{_HEAD}<RemoteAccess><Version>1</Version><Incarnation>1</Incarnation>"
        f"<Users>{users}</Users></RemoteAccess>"
    )
