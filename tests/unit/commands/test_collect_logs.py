"""`waagent -collect-logs`: what explains is in it, secrets are not."""

from __future__ import annotations

import zipfile
from pathlib import Path

from waagent.distro.paths import Paths
from waagent.supervisor.commands.collect_logs import collect, without_secrets

SECRETS = ("S1gnature%2F", "hunter2", "MIIKEYDATA", "$6$salt$hashhashhash", "cHJvdGVjdGVk")
LOG = f"""\
2026-11-28T05:00:00.000Z INFO transfer[7] GET https://acc.blob.core.windows.net/c/b?sv=1&sig={SECRETS[0]} done
2026-11-28T05:00:01.000Z INFO x[7] password={SECRETS[1]} kept
{{"protectedSettings": "{SECRETS[4]}"}}
-----BEGIN RSA PRIVATE KEY-----
{SECRETS[2]}
-----END RSA PRIVATE KEY-----
root:{SECRETS[3]}:19000
2026-11-28T05:00:02.000Z ERROR provisioner[7] provisioning failed: no room
"""


def a_system(root: Path) -> Paths:
    for name, text in (
        ("var/log/waagent.log", LOG),
        ("var/log/azure/Contoso.Hello/CommandExecution.log", LOG),
        ("var/lib/waagent/Contoso.Hello-1.0.0/config/0.settings", SECRETS[4]),
        ("var/lib/waagent/Contoso.Hello-1.0.0/status/0.status", '[{"status": {}}]'),
        ("var/lib/waagent/transport/TransportPrivate.pem", SECRETS[2]),
        ("var/lib/waagent/ABCD.prv", SECRETS[2]),
        ("var/lib/waagent/CustomData", SECRETS[1]),
        ("var/lib/waagent/ovf-env.xml", SECRETS[1]),
        ("etc/os-release", "ID=debian\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "var/log/azure/Contoso.Hello/shadow.log").symlink_to("/etc/shadow")
    return Paths(root)


def test_the_archive_has_logs_and_no_secret(tmp_path: Path) -> None:
    archive, report = collect(a_system(tmp_path))

    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        everything = b"".join(opened.read(name) for name in names)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "var/log/azure/Contoso.Hello/CommandExecution.log" in names
    assert "var/lib/waagent/Contoso.Hello-1.0.0/status/0.status" in names
    assert b"provisioning failed: no room" in everything
    assert [secret for secret in SECRETS if secret.encode() in everything] == []
    assert not [name for name in names if "settings" in name or "Private" in name or ".prv" in name]
    assert any("shadow.log: left out" in line for line in report)
    assert "results.txt" in names


def test_a_url_keeps_its_place_and_loses_its_query() -> None:
    line = b"PUT https://a.blob.core.windows.net/s/vm.status?sig=abc&se=1 failed"

    assert without_secrets(line) == b"PUT https://a.blob.core.windows.net/s/vm.status?*** failed"
