"""ExtensionsConfig: one handler's nonsense is that handler's error, never the others'."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus import topics
from waagent.protocol.bus.topics import Dependency, HandlerGoal
from waagent.protocol.wire.extensions_config import ExtensionsGoal, read_extensions_config

THUMB = "A" * 40


def a_plugin(name="Contoso.A", version="1.2.0", state="enabled") -> str:
    return (
        f'<Plugin name="{name}" version="{version}" state="{state}" location="https://a/m.xml"'
        ' failoverlocation="https://b/m.xml"/>'
    )


def a_setting(name="Contoso.A", version="1.2.0", inner: str = "") -> str:
    return f'<Plugin name="{name}" version="{version}">{inner}</Plugin>'


def runtime(public: object = None, sequence: str = "3", **more: str) -> str:
    text = json.dumps(
        {"runtimeSettings": [{"handlerSettings": {"publicSettings": public, **more}}]}
    )
    return f'<RuntimeSettings seqNo="{sequence}">\n<![CDATA[{text}]]>\n</RuntimeSettings>'


def read(plugins: str, settings: str = "", extra: str = "") -> ExtensionsGoal:
    document = (
        f'<Extensions version="1.0.0.0" goalStateIncarnation="7"><Plugins>{plugins}</Plugins>'
        f"<PluginSettings>{settings}</PluginSettings>{extra}</Extensions>"
    )
    return read_extensions_config(document.encode(), "incarnation_7")


def only(goal: ExtensionsGoal) -> HandlerGoal:
    assert len(goal.handlers) == 1
    return goal.handlers[0]


def test_a_handler_with_settings_is_read_whole() -> None:
    handler = only(
        read(
            a_plugin(),
            a_setting(
                inner=runtime(
                    {"k": "ü"},
                    protectedSettings="MIIB",
                    protectedSettingsCertThumbprint=THUMB.lower(),
                )
                + '<DependsOn dependencyLevel="2"><DependsOnExtension'
                ' handler="Contoso.B"/></DependsOn>'
            ),
        )
    )

    extension = handler.extensions[0]
    assert (handler.name, handler.version, handler.state, handler.goal_state_id, handler.error) == (
        "Contoso.A",
        "1.2.0",
        "enabled",
        "incarnation_7",
        "",
    )
    assert (
        extension.sequence,
        json.loads(extension.public_settings),
        extension.protected_settings,
    ) == (3, {"k": "ü"}, "MIIB")
    assert extension.certificate_thumbprint == THUMB
    assert (extension.dependency_level, extension.depends_on) == (2, (Dependency("Contoso.B"),))


def test_settings_are_found_in_any_case_of_the_name() -> None:
    assert (
        only(read(a_plugin(), a_setting(name="CONTOSO.a", inner=runtime()))).extensions[0].sequence
        == 3
    )


def test_absent_public_settings_are_null() -> None:
    assert (
        only(read(a_plugin(), a_setting(inner=runtime()))).extensions[0].public_settings == "null"
    )


def test_a_handler_without_settings_has_no_extension() -> None:
    handler = only(read(a_plugin(name="Microsoft.AKS.Compute.AKS-Engine.Linux.Billing")))

    assert (handler.extensions, handler.error) == ((), "")


def test_multi_config_keeps_each_extension_with_its_state_and_level() -> None:
    text = '{"runtimeSettings":[{"handlerSettings":{}}]}'
    inner = (
        '<DependsOn dependencyLevel="2" name="two"><DependsOnExtension handler="Contoso.A"'
        ' extension="one"/></DependsOn><ExtensionRuntimeSettings seqNo="0" name="one"'
        f' state="Enabled">{text}</ExtensionRuntimeSettings><ExtensionRuntimeSettings seqNo="4"'
        f' name="two" state="disabled">{text}</ExtensionRuntimeSettings>'
    )
    handler = only(read(a_plugin(), a_setting(inner=inner)))

    assert handler.multi_config and handler.error == ""
    assert [
        (item.name, item.sequence, item.state, item.dependency_level) for item in handler.extensions
    ] == [("one", 0, "enabled", 0), ("two", 4, "disabled", 2)]
    assert handler.extensions[1].depends_on == (Dependency("Contoso.A", "one"),)


@pytest.mark.parametrize(
    ("plugin", "settings", "text"),
    [
        (a_plugin(name="../evil"), "", "name"),
        (a_plugin(name=".hidden"), "", "name"),
        (a_plugin(name="a" * 200), "", "name"),
        (a_plugin(version="1.0/.."), "", "not a version"),
        (a_plugin(version=""), "", "not a version"),
        (a_plugin(state=""), "", "state"),
        (
            a_plugin(),
            a_setting(version="1.3.0", inner=runtime()),
            "PluginSettings Version Mismatch",
        ),
        (a_plugin(), a_setting(inner=runtime()) * 2, "several PluginSettings"),
        (a_plugin() * 2, "", "more than once"),
        (a_plugin(), a_setting(inner=runtime() * 2), "several RuntimeSettings"),
        (a_plugin(), a_setting(inner=runtime(sequence="")), "seqNo"),
        (a_plugin(), a_setting(inner=runtime(sequence="-1")), "seqNo"),
        (
            a_plugin(),
            a_setting(inner='<RuntimeSettings seqNo="5">{"runtimeSettings": </RuntimeSettings>'),
            "not JSON",
        ),
        (
            a_plugin(),
            a_setting(inner='<RuntimeSettings seqNo="5">{}</RuntimeSettings>'),
            "no runtimeSettings",
        ),
        (
            a_plugin(),
            a_setting(inner=f'<RuntimeSettings seqNo="5">{"[" * 100000}</RuntimeSettings>'),
            "not JSON",
        ),
        (
            a_plugin(),
            a_setting(inner=runtime(protectedSettings="MIIB")),
            "without protectedSettingsCertThumbprint",
        ),
        (a_plugin(), a_setting(inner=runtime(protectedSettingsCertThumbprint="../x")), "40 hex"),
        (a_plugin(), a_setting(inner=runtime() + "<DependsOn/><DependsOn/>"), "several DependsOn"),
        (a_plugin(), a_setting(inner=runtime("x" * 800_000)), "limit"),
        (
            a_plugin(),
            a_setting(
                inner='<ExtensionRuntimeSettings seqNo="0" name="a/b">{}</ExtensionRuntimeSettings>'
            ),
            "name of an extension",
        ),
    ],
)
def test_a_config_error_is_that_handlers_alone(plugin: str, settings: str, text: str) -> None:
    goal = read(plugin + a_plugin(name="Contoso.Good", version="2.0"), settings)

    assert (
        goal.handlers[0].error.startswith("Ran into config errors: ")
        and text in goal.handlers[0].error
    )
    assert goal.handlers[1].error == ""
    assert all(item.protected_settings is None for item in goal.handlers[0].extensions)


def test_an_extension_in_error_keeps_its_sequence_number() -> None:
    handler = only(
        read(a_plugin(), a_setting(inner='<RuntimeSettings seqNo="5">no JSON</RuntimeSettings>'))
    )

    assert handler.extensions[0].sequence == 5


def test_the_status_blob_is_stripped_and_its_type_defaults_to_block() -> None:
    goal = read(
        "",
        extra=(
            "<StatusUploadBlob>\n   https://a/$system/vm.status?sv=x&amp;sig=y\n</StatusUploadBlob>"
        ),
    )

    assert (goal.status_url, goal.status_blob_type) == (
        "https://a/$system/vm.status?sv=x&sig=y",
        "BlockBlob",
    )


def test_a_missing_status_blob_is_a_finding() -> None:
    assert any("StatusUploadBlob" in finding for finding in read("").findings)


def test_manifest_locations_keep_their_order() -> None:
    plugin = (
        '<Plugin name="C.A" version="1" state="enabled" location="https://a/m"'
        ' failoverlocation=""><additionalLocations>'
        "<additionalLocation>https://c/m</additionalLocation></additionalLocations></Plugin>"
    )

    assert read(plugin).artifacts[0].manifest_urls == ("https://a/m", "https://c/m")


def test_unknown_required_features_are_named() -> None:
    features = "".join(
        f"<RequiredFeature><Name>{name}</Name></RequiredFeature>"
        for name in ("MultipleExtensionsPerHandler", "Teleport")
    )

    assert read(
        "", extra=f"<RequiredFeatures>{features}</RequiredFeatures>"
    ).unsupported_features == ("Teleport",)


PIECES = st.sampled_from(
    [
        a_plugin(),
        a_plugin(name="B.C", state="uninstall"),
        runtime(),
        a_setting(inner=runtime()),
        "<Plugins>",
        "</Plugins>",
        "<DependsOn/>",
        "<RuntimeSettings>x</RuntimeSettings>",
        '<ExtensionRuntimeSettings seqNo="0" name="a">{}</ExtensionRuntimeSettings>',
        "&#0;",
        "\ud7ff",
    ]
)


@given(st.lists(PIECES, max_size=6), st.lists(PIECES, max_size=6))
def test_raises_nothing_but_its_error(plugins: list[str], inner: list[str]) -> None:
    try:
        goal = read("".join(plugins), a_setting(inner="".join(inner)))
    except DocumentError:
        return
    for handler in goal.handlers:
        assert topics.from_body(HandlerGoal, topics.to_body(handler)) == handler
