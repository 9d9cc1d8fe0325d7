"""The documents of the WireServer, made from what the platform knows of the VM (spec: wire §2, §4).
Pure text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from waagent.lab.fabric.values import (
    PROTOCOL_VERSION,
    SAS,
    STORAGE_HOST,
    Extension,
    Settings,
    VirtualMachine,
)

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'

Protect = Callable[[Any], tuple[str, str]]
"""protected settings -> (base64 CMS, thumbprint)"""


def blob_url(path: str, scheme: str = "https") -> str:
    """The full URL of a blob, SAS included; ``path`` starts with a slash."""
    return f"{scheme}://{STORAGE_HOST}{path}?{SAS}"


def manifest_path(extension: Extension) -> str:
    """Where a handler's publisher manifest lies in the storage."""
    return f"/packages/{extension.name}_manifest.xml"


def package_path(extension: Extension, version: str | None = None) -> str:
    """Where the package of one version lies in the storage."""
    return f"/packages/{extension.name}__{version or extension.version}"


STATUS_PATH = "/$system/vm1.status"


def versions(vm: VirtualMachine) -> str:
    """The versions document (spec: wire §2.2)."""
    supported = "".join(f"<Version>{escape(version)}</Version>" for version in vm.versions)
    preferred = f"<Preferred><Version>{escape(vm.versions[0])}</Version></Preferred>"
    return f"{_HEAD}<Versions>{preferred}<Supported>{supported}</Supported></Versions>"


def goal_state(vm: VirtualMachine, base: str) -> str:
    """The goal state document (spec: wire §2.3)."""
    """``base`` is `http://ADDRESS:PORT`."""
    ports = "".join(f"<Port>{port}</Port>" for port in vm.probe_ports)
    instance = _role_instance(vm, base) if vm.with_role_instance else ""
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
    <ContainerId>{vm.container_id}</ContainerId>
    <RoleInstanceList>{instance}</RoleInstanceList>
  </Container>
</GoalState>"""


def _role_instance(vm: VirtualMachine, base: str) -> str:
    folder = f"{base}/machine/{vm.container_id}/{vm.instance_id}".replace("_", "%5F").replace(
        "-", "%2D"
    )

    def config(tag: str, kind: str) -> str:
        return (
            f"<{tag}>{folder}?comp=config&amp;type={kind}&amp;incarnation={vm.incarnation}</{tag}>"
        )

    lines = [
        config("HostingEnvironmentConfig", "hostingEnvironmentConfig"),
        config("SharedConfig", "sharedConfig"),
        config("ExtensionsConfig", "extensionsConfig") if vm.with_extensions_config else "",
        config("FullConfig", "fullConfig"),
        (
            f"<Certificates>{folder}?comp=certificates&amp;incarnation={vm.incarnation}</Certificates>"
            if vm.with_certificates
            else ""
        ),
        f"<ConfigName>{escape(vm.config_name)}</ConfigName>" if vm.config_name else "",
    ]
    text = "\n          ".join(line for line in lines if line)
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
    """HostingEnvironmentConfig (spec: wire §2.5)."""
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
    """SharedConfig (spec: wire §2.6)."""
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
    """CertificateFile around base64 ``data`` (spec: wire §2.7.2)."""
    return f"""{_HEAD}<CertificateFile {_XSI} xsi:noNamespaceSchemaLocation="certificates10.xsd">
  <Version>{PROTOCOL_VERSION}</Version>
  <Incarnation>1</Incarnation>
  <Format>{escape(vm.certificate_format)}</Format>
  <Data>{data}</Data>
</CertificateFile>"""


def extensions_config(vm: VirtualMachine, protect: Protect, scheme: str = "https") -> str:
    """ExtensionsConfig (spec: wire §4.1)."""
    features = "".join(
        f"<RequiredFeature><Name>{escape(name)}</Name></RequiredFeature>"
        for name in vm.required_features
    )
    plugins = "\n    ".join(_plugin(extension, scheme) for extension in vm.extensions)
    settings = "\n    ".join(
        _plugin_settings(extension, protect) for extension in vm.extensions if extension.settings
    )
    blob = ""
    if vm.with_status_blob:
        kind, url = quoteattr(vm.status_blob_type), escape(blob_url(STATUS_PATH, scheme))
        blob = f"<StatusUploadBlob statusBlobType={kind}>{url}</StatusUploadBlob>"
    return f"""{_HEAD}<Extensions version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
    <GAFamilies><GAFamily><Name>Prod</Name><Uris /></GAFamily></GAFamilies>
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
  <InVMGoalStateMetaData inSvdSeqNo="{vm.incarnation}" createdOnTicks="{638852750771746340 + vm.incarnation}"
      activityId="0b6f2f64-0000-4000-8000-00000000000a" correlationId="0b6f2f64-0000-4000-8000-00000000000b" />
</Extensions>"""


def _plugin(extension: Extension, scheme: str) -> str:
    location = quoteattr(blob_url(manifest_path(extension), scheme))
    return (
        f"<Plugin name={quoteattr(extension.name)} version={quoteattr(extension.version)}"
        f" location={location}"
        f' failoverlocation={location} config="" state={quoteattr(extension.state)}'
        ' autoUpgrade="false" runAsStartupTask="false" isJson="true" useExactVersion="true" />'
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


def package_manifest(
    extension: Extension, versions_known: tuple[str, ...], scheme: str = "https"
) -> str:
    """The publisher manifest (spec: wire §2.14)."""
    uris = {
        version: escape(blob_url(package_path(extension, version), scheme))
        for version in versions_known
    }
    plugins = "".join(
        f"<Plugin><Version>{escape(known)}</Version><Uris><Uri>{uri}</Uri></Uris></Plugin>"
        for known, uri in uris.items()
    )
    return (
        f"{_HEAD}<PluginVersionManifest"
        f' xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><Plugins>{plugins}</Plugins></PluginVersionManifest>'
    )
