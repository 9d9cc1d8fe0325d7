"""certificate_keeper for real: keys made once, the platform's certificates opened with every
cipher, nothing left readable.
"""

from __future__ import annotations

import subprocess

import pytest


def a_keeper_at_work(stage) -> None:
    stage.environment()
    stage.client()
    stage.keeper()


def thumbprints(stage) -> list[str]:
    return sorted(path.stem for path in stage.supervisor.paths.library.glob("*.crt"))


@pytest.mark.parametrize("ciphers", [("AES128_CBC",), ("DES_EDE3_CBC",)])
def test_keys_and_certificates_are_files_named_by_thumbprint(
    stage, ciphers: tuple[str, ...]
) -> None:
    stage.fabric.goal_state(ciphers=ciphers)
    a_keeper_at_work(stage)
    stage.ask("provisioner")

    told = stage.until(
        lambda: [
            value for value, _ in stage.answers("fabric_client.goal_state") if value["certificates"]
        ],
        "certificates",
    )
    library = stage.supervisor.paths.library
    assert thumbprints(stage) == sorted(told[-1]["certificates"])
    keys = list(library.glob("*.prv"))
    assert keys
    for path in (*keys, *library.glob("*.crt")):
        assert path.stat().st_mode & 0o777 == 0o600
    public = subprocess.run(
        ["openssl", "pkey", "-in", keys[0], "-pubout"], capture_output=True, check=True
    ).stdout
    certificate = keys[0].with_suffix(".crt")
    assert (
        subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-pubkey"],
            capture_output=True,
            check=True,
        ).stdout
        == public
    )
    assert "PRIVATE" not in stage.supervisor.log_text()


def test_the_transport_key_is_made_once_and_found_at_the_old_place(stage) -> None:
    a_keeper_at_work(stage)
    transport, library = stage.supervisor.paths.transport, stage.supervisor.paths.library
    stage.until(lambda: thumbprints(stage), "certificates")
    key = (transport / "TransportPrivate.pem").read_bytes()

    stage.supervisor.kill("certificate_keeper")
    stage.keeper()
    stage.fabric.goal_state()
    stage.until(
        lambda: (
            stage.fabric.statuses[-1]["aggregateStatus"]["vmArtifactsAggregateStatus"][
                "goalStateAggregateStatus"
            ]["inSvdSeqNo"]
            == "2"
        ),
        "the next goal state",
    )

    assert (library / "TransportPrivate.pem").read_bytes() == key
    assert transport.stat().st_mode & 0o777 == 0o700
    assert (transport / "TransportPrivate.pem").stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["openssl", "x509", "-in", transport / "TransportCert.pem", "-noout", "-text"],
        capture_output=True,
        check=True,
    )
    text = shown.stdout
    assert b"Subject Key Identifier" in text and b"LinuxTransport" in text
    assert sorted(path.name for path in transport.iterdir()) == [
        "TransportCert.pem",
        "TransportPrivate.pem",
    ]


def test_a_foreign_recipient_is_one_clear_line_and_stops_nothing(stage) -> None:
    stage.fabric.goal_state(certificates_case="wrong_recipient")
    a_keeper_at_work(stage)

    stage.until(
        lambda: "not for our transport certificate" in stage.supervisor.log_text(), "a line"
    )
    stored = len(stage.fabric.statuses)
    stage.until(lambda: len(stage.fabric.statuses) > stored + 1, "statuses meanwhile")
    assert thumbprints(stage) == []


def test_a_key_without_certificate_is_left_out(stage) -> None:
    stage.fabric.goal_state(certificates_case="key_only")
    a_keeper_at_work(stage)

    stage.until(lambda: stage.supervisor.said("fabric_client", "unwant"), "the end of the round")
    assert list(stage.supervisor.paths.library.glob("*.prv")) == []


def test_twenty_certificates_are_all_there(stage) -> None:
    stage.fabric.goal_state(certificates_case="many")
    a_keeper_at_work(stage)

    def are_there() -> bool:
        if stage.supervisor.processes["certificate_keeper"].poll() is not None:
            # the platform took so long to make 20 keys that it ended; it is wanted, so a supervisor
            # starts it again
            stage.keeper()
        return len(thumbprints(stage)) >= 20

    stage.until(are_there, "20 certificates", 150)


def test_it_ends_when_nobody_asks(stage) -> None:
    stage.keeper()
    process = stage.supervisor.processes["certificate_keeper"]

    assert process.wait(20) == 0
