"""The publisher manifest and the choice of a package in it (spec: wire §2.14, extensions §1.5).
Loads lxml.
"""

from __future__ import annotations

from dataclasses import dataclass

from waagent.protocol.base import xml
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire import constants, identifiers, urls


@dataclass(frozen=True)
class Package:
    """One version that the publisher offers."""

    version: str
    uris: tuple[str, ...]
    is_internal: bool = False


def read_manifest(data: bytes, where: str) -> tuple[Package, ...]:
    """The packages in numeric order; entries without a version are left out. Raises
    DocumentError.
    """
    root = xml.read_xml(
        data, where, limit_bytes=constants.MANIFEST_LIMIT_BYTES, root="PluginVersionManifest"
    )
    packages: list[Package] = []
    for folder, is_internal in (("Plugins", False), ("InternalPlugins", True)):
        for plugin in xml.children(xml.child(root, folder), "Plugin"):
            version = xml.text_at(plugin, "Version")
            if identifiers.is_version(version):
                packages.append(Package(version, _uris(plugin, where), is_internal))
    return tuple(sorted(packages, key=lambda package: identifiers.version_numbers(package.version)))


def _uris(plugin: xml.Element, where: str) -> tuple[str, ...]:
    found: list[str] = []
    for item in xml.children(xml.child(plugin, "Uris"), "Uri"):
        try:
            found.append(urls.storage_url(xml.text_of(item), where))
        except DocumentError:
            continue  # an empty Uri is common; a package without any is told by choose_package
    return tuple(found)


def choose_package(packages: tuple[Package, ...], version: str, where: str) -> Package:
    """Exactly the version (1.2 = 1.2.0.0), else the newest that begins with it. Raises
    DocumentError when there is none.
    """
    exact = [
        package
        for package in packages
        if identifiers.version_numbers(package.version) == identifiers.version_numbers(version)
    ]
    prefix = [package for package in packages if (package.version + ".").startswith(version + ".")]
    chosen = next((package for package in reversed(exact or prefix) if package.uris), None)
    if chosen is not None:
        return chosen
    if exact or prefix:
        raise DocumentError(
            f"version {version} has no URI in the manifest",
            where,
            "the publisher must offer the package again",
        )
    raise DocumentError(
        f"unable to find version {version} in manifest",
        where,
        "ask for a version that the publisher offers",
    )
