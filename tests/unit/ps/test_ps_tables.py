"""What waagent-ps prints, against the samples of ui.md."""

from __future__ import annotations

import re

import pytest

from waagent.protocol.operations_file import parse_map
from waagent.protocol.state_table import parse_table
from waagent.supervisor.ps import json, metrics, snapshot, tables, watch
from waagent.supervisor.ps.process_figures import Seen
from waagent.supervisor.ps.snapshot import Silence, Snapshot, exit_status, worker_rows
from waagent.supervisor.ps.tables import Form

DAY_S = 86400.0
NOW = 20 * DAY_S
UP_S = 12 * DAY_S + 4 * 3600


def a_worker(name: str, state: str = "READY", **more: object) -> dict[str, object]:
    return {"name": name, "kind": "resident", "state": state, "restarts": 0, **more}


TABLE = {
    "workers": [
        a_worker("disk_manager", "DONE", result="/mnt/resource, swap 2 GiB"),
        a_worker(
            "environment_monitor", pid=712, since=NOW - UP_S, beat_at=NOW - 3, doing="watching eth0"
        ),
        a_worker(
            "extension_runner",
            pid=9034,
            since=NOW - 120,
            beat_at=NOW - 1,
            restarts=1,
            doing="1 running, 1 waiting",
            reason="no heartbeat for 35 s",
            stack="/var/log/waagent/extension_runner.hang",
        ),
        a_worker(
            "fabric_client", pid=731, since=NOW - UP_S, beat_at=NOW - 6, doing="next poll in 4 s"
        ),
        a_worker("probe_responder", "IDLE", reason="no probe port"),
        a_worker("provisioner", "DONE", result="azureuser, 12d04h ago"),
    ]
}
SEEN = {
    712: Seen(True, "S", 4200, 1.0),
    9034: Seen(True, "S", 4900, 1.0),
    731: Seen(True, "S", 7300, 1.0),
}

OPERATIONS = {
    "schema": 1,
    "goal_state": "17",
    "updated_at": NOW - 180,
    "operations": [
        {
            "handler": "Microsoft.Azure.Extensions.CustomScript",
            "version": "2.1.13",
            "sequence": 4,
            "operation": "enable",
            "state": "running",
            "elapsed_s": 0,
            "limit_s": 300,
            "reported": "transition",
        },
        {
            "handler": "Microsoft.OSTCExtensions.VMAccess",
            "version": "1.5.16",
            "sequence": 2,
            "operation": "enable",
            "state": "failed",
            "elapsed_s": 0.4,
            "exit_code": 1,
            "reported": "error",
            "message": "stderr: useradd: user 'bob' already exists",
        },
        {
            "handler": "Contoso.Agent",
            "version": "1.2.0",
            "sequence": 0,
            "operation": "enable",
            "state": "done",
            "elapsed_s": 0.3,
            "exit_code": 0,
            "reported": "success",
            "profile": "strict",
            "denied": "write /etc/cron.d/x",
        },
        {
            "handler": "Contoso.Agent",
            "version": "1.2.0",
            "sequence": 0,
            "operation": "install",
            "state": "failed",
            "exit_code": 1,
        },
        {
            "handler": "LinuxDiagnostic",
            "version": "4.0.27",
            "operation": "install",
            "state": "waiting",
            "elapsed_s": 40,
            "waiting_for": "the dpkg lock: unattended-upgr[2679]",
        },
    ],
}


def a_snapshot(
    table: dict[str, object] = TABLE,
    silence: Silence | None = None,
    operations: dict[str, object] | None = None,
) -> Snapshot:
    return Snapshot(
        version="3.0.0",
        system="debian 12",
        host="web1",
        silence=silence,
        pid=688,
        uptime_s=UP_S,
        pss_kib=9000,
        total_pss_kib=28877,
        cpu_percent=0.04,
        provisioned=True,
        endpoint="168.63.129.16",
        last_answer_s=2.3,
        last_status_s=41.9,
        goal_state="17",
        health="Ready",
        missing=("landlock",),
        notes=("VM was suspended 11 s",),
        workers=worker_rows(parse_table(table), SEEN, NOW, is_answered=silence is None),
        operations=snapshot.operation_rows(parse_map(operations or {}), NOW),
    )


def test_the_listing_has_the_form_of_the_sample() -> None:
    lines = tables.listing(a_snapshot(), Form())

    assert lines == [
        "waagent 3.0.0 on debian 12  up 12d04h  28.2 MiB  CPU 0.04 %  Ready  goal 17",
        "platform 168.63.129.16: answered 2 s ago, status sent 41 s ago",
        "NAME                 STATE   PID UPTIME RST BEAT  MEM DOING",
        "disk_manager         DONE      -      -   0    -    - /mnt/resource, swap 2 GiB",
        "environment_monitor  READY   712 12d04h   0   3s 4.1M watching eth0",
        "extension_runner     READY  9034     2m   1   1s 4.8M 1 running, 1 waiting",
        "fabric_client        READY   731 12d04h   0   6s 7.1M next poll in 4 s",
        "probe_responder      IDLE      -      -   0    -    - no probe port",
        "provisioner          DONE      -      -   0    -    - azureuser, 12d04h ago",
        "! extension_runner: replaced 2m ago, no heartbeat for 35 s; operations went on",
        "  stack: /var/log/waagent/extension_runner.hang",
        "! VM was suspended 11 s",
    ]
    assert snapshot.exit_status(a_snapshot()) == 0


def test_a_firewall_that_lets_only_root_out_is_named() -> None:
    lines = tables.listing(a_snapshot()._replace(way="environment_monitor"), Form(100))

    assert lines[1] == (
        "platform reached through environment_monitor (firewall): answered 2 s ago, status sent 41 s ago"
    )


def test_no_line_is_longer_than_80_columns_and_all_is_ascii() -> None:
    table = {
        "workers": [
            a_worker(
                "fabric_client",
                "READY",
                pid=4194304,
                since=1.0,
                restarts=12345,
                doing="\u00e4" * 300,
            )
        ]
    }
    seen = {4194304: Seen(True, "S", 5 * 1024 * 1024, 1.0)}
    workers = worker_rows(parse_table(table), seen, NOW, is_answered=True)
    snapshot = a_snapshot(operations=OPERATIONS)._replace(workers=workers, notes=("n" * 200,))

    lines = tables.listing(snapshot, Form()) + tables.extensions(snapshot.operations, Form())

    assert all(len(line) <= 80 and line.isascii() for line in lines)


def test_the_wide_form_has_more_columns_and_says_what_is_missing() -> None:
    lines = tables.listing(a_snapshot(), Form(200, True))

    assert (
        lines[2].split()
        == "NAME STATE PID UPTIME RST BEAT MEM CPU LAST EXIT UID CAPS FENCE DOING".split()
    )
    assert lines[-1] == "missing here: landlock"


def test_a_worker_that_is_not_well_gives_status_1() -> None:
    for state in ("HUNG", "BACKOFF", "PARKED", "STUCK"):
        assert (
            snapshot.exit_status(a_snapshot({"workers": [a_worker("fabric_client", state)]})) == 1
        )


def test_backoff_tells_the_next_try_and_why() -> None:
    snapshot = a_snapshot(
        {
            "workers": [
                a_worker("fabric_client", "BACKOFF", next_try_at=NOW + 4.4, last_exit="exit 1")
            ]
        }
    )

    assert tables.listing(snapshot, Form())[3].endswith("next try in 4s, exit 1")


def test_a_silent_supervisor_is_the_first_thing_said() -> None:
    snapshot = a_snapshot(
        silence=Silence(
            "pid 688 stopped (state T), last beat 41 s ago", "systemctl restart waagent"
        )
    )

    assert tables.listing(snapshot, Form())[:4] == [
        "SUPERVISOR NOT ANSWERING: pid 688 stopped (state T), last beat 41 s ago",
        "shown from /run/waagent/state and /proc; operations go on",
        "remedy: systemctl restart waagent   (operations go on, nothing runs twice)",
        "NAME                 STATE   PID UPTIME RST BEAT  MEM DOING",
    ]
    assert exit_status(snapshot) == 3


def test_workers_that_died_with_a_silent_supervisor_are_gone() -> None:
    workers = worker_rows(parse_table(TABLE), {712: Seen(True, "S")}, NOW, is_answered=False)

    assert {
        worker.name: worker.state for worker in workers if worker.state not in ("DONE", "IDLE")
    } == {"environment_monitor": "READY", "extension_runner": "GONE", "fabric_client": "GONE"}


def test_extensions_have_the_form_of_the_sample() -> None:
    lines = tables.extensions(a_snapshot(operations=OPERATIONS).operations, Form())

    assert lines == [
        "HANDLER                     VERSION    SEQ LAST OP STATE    TIME EXIT REPORTED",
        "Contoso.Agent               1.2.0        0 enable  done     0.3s    0 success",
        "  strict, denied: write /etc/cron.d/x",
        "LinuxDiagnostic             4.0.27       - install waiting   40s    - -",
        "  waits for the dpkg lock: unattended-upgr[2679]",
        "..e.Extensions.CustomScript 2.1.13       4 enable  running  3m0s    - transition",
        "..t.OSTCExtensions.VMAccess 1.5.16       2 enable  failed   0.4s    1 error",
        "  stderr: useradd: user 'bob' already exists",
        "  log: /var/log/azure/Microsoft.OSTCExtensions.VMAccess/CommandExecution.log",
        "4 handlers: 1 done, 1 running, 1 waiting, 1 failed   (goal state 17, 3m ago)",
    ]


def test_only_the_last_operation_of_a_handler_counts() -> None:
    operations = a_snapshot(operations=OPERATIONS).operations

    assert [row.handler for row in snapshot.failed(operations)] == [
        "Microsoft.OSTCExtensions.VMAccess"
    ]
    assert len(snapshot.newest(operations.rows)) == 4
    assert (
        sum("install" in line for line in tables.extensions(operations, Form(), is_all=True)) == 2
    )


def test_failed_extensions_are_noted_below_the_workers() -> None:
    assert (
        tables.listing(a_snapshot(operations=OPERATIONS), Form())[-1]
        == "! 1 extension failed, see: waagent-ps extensions"
    )


def test_foreign_maps_never_break_the_view() -> None:
    for rows in (
        None,
        3,
        [3, None],
        [{"name": 7, "state": None, "pid": "x", "facts": [], "restarts": "many"}],
    ):
        assert tables.worker_table(
            worker_rows(parse_table({"workers": rows}), {}, NOW, is_answered=True),
            Form(),
        )
    assert tables.extensions(
        snapshot.operation_rows(parse_map({"operations": [{}, 4, {"elapsed_s": "x"}]}), NOW), Form()
    )


def test_watch_folds_what_is_done_and_names_changes() -> None:
    before = a_snapshot(operations=OPERATIONS)
    hung = {
        "workers": [
            (
                dict(row, state="HUNG", reason="no heartbeat for 35 s")
                if row["name"] == "extension_runner"
                else row
            )
            for row in TABLE["workers"]
        ]
    }
    after = a_snapshot(hung, operations={"operations": []})

    lines = watch.screen(
        after, [], Form(), only_extensions=False, shows_done=False, clock="15:44:18"
    )

    assert lines[0].startswith(
        "waagent 3.0.0  web1  up 12d04h  28.2 MiB  CPU 0.04 %  Ready  goal 17  "
    )
    assert lines[0].endswith("15:44:18")
    assert lines[-1] == "  DONE: disk_manager provisioner   IDLE: probe_responder"
    assert watch.changes(before, after) == ["extension_runner HUNG, no heartbeat for 35 s"]
    assert watch.changes(before, before) == []
    assert "CustomScript 2.1.13 enable started, seq 4" in watch.changes(a_snapshot(), before)


def test_running_operations_show_how_much_of_their_limit_is_used() -> None:
    row = snapshot.operation_rows(
        parse_map(
            {
                "operations": [
                    {
                        "handler": "X.CustomScript",
                        "operation": "enable",
                        "state": "running",
                        "elapsed_s": 72,
                        "limit_s": 300,
                    }
                ]
            }
        ),
        NOW,
    ).rows[0]

    assert tables.running_table([(row, "84M", "12%", "9")], Form()) == [
        "HANDLER                     OP      STATE    TIME LIMIT          MEM CPU PIDS",
        "X.CustomScript              enable  running 1m12s [#.......] 5m  84M 12%    9",
    ]


def test_colour_changes_no_word() -> None:
    plain, coloured = (
        tables.listing(a_snapshot(), Form(is_colour=colour)) for colour in (False, True)
    )

    assert "\x1b[32mREADY\x1b[0m" in coloured[4]
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == plain


def test_json_has_every_field_of_schema_1() -> None:
    document = json.document(a_snapshot(operations=OPERATIONS))

    assert (
        document["schema"] == 1
        and document["source"] == "supervisor"
        and document["provisioned"] is True
    )
    assert {"endpoint", "last_answer_s", "last_status_s", "goal_state"} <= set(document["platform"])
    assert {"pid", "uptime_s", "pss_kib"} <= set(document["supervisor"])
    assert set(
        "name kind state pid uptime_s restarts last_exit reason next_try_s beat_age_s cpu_s pss_kib"
        " uid caps fence doing log".split()
    ) <= set(document["workers"][0])
    assert set(
        "handler version extension operation sequence state waiting_for elapsed_s limit_s exit_code"
        " signal pid cgroup profile denied reported message".split()
    ) <= set(document["operations"][0])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            (
                "[ExtensionOperationError] Non-zero exit code: 7,"
                " /x/enable.sh\n[stdout]\nworking\n\n[stderr]\noh no\n\n"
            ),
            ["stderr: oh no"],
        ),
        (
            (
                "[ExtensionOperationError] Non-zero exit code: 7, /x/enable.sh\n[stdout]\nlast"
                " words\n\n[stderr]\n"
            ),
            ["stdout: last words"],
        ),
        (
            (
                "[ExtensionOperationError] Non-zero exit code: 7,"
                " /x/enable.sh\n[stdout]\n\n\n[stderr]\n"
            ),
            ["Non-zero exit code: 7, /x/enable.sh"],
        ),
        (
            "[ExtensionError] Timeout(900): /x/install.sh\n[stdout]\n\n\n[stderr]\n",
            ["time limit 15m0s reached and all of it killed; raise: /etc/waagent/sandbox.d/"],
        ),
    ],
)
def test_a_failed_operation_shows_why_in_one_line(message: str, shown: list[str]) -> None:
    row = {
        "handler": "Contoso.Agent",
        "version": "1.2.0",
        "sequence": 0,
        "operation": "enable",
        "state": "failed",
        "exit_code": 7,
        "limit_s": 900,
        "message": message,
    }

    lines = tables.extensions(
        snapshot.operation_rows(parse_map({"updated_at": NOW, "operations": [row]}), NOW), Form()
    )

    assert [line.strip() for line in lines[2:-1]] == [
        *shown,
        "log: /var/log/azure/Contoso.Agent/CommandExecution.log",
    ]


def test_metrics_are_openmetrics_with_every_worker_and_operation() -> None:
    text = metrics.text(a_snapshot(operations=OPERATIONS))

    lines = text.splitlines()
    sample = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\]|\\.)*",?)+\})? -?[0-9]+(\.[0-9]+)?')
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert lines[-1] == "# EOF" and text.endswith("\n")
    assert all(sample.fullmatch(line) for line in lines if line[0] != "#")
    assert len(families) == len(set(families))
    for line in (line for line in lines if line.startswith("# UNIT")):
        _, _, family, unit = line.split()
        assert family.endswith(f"_{unit}")
    assert 'waagent_worker_restarts_total{worker="extension_runner"} 1' in lines
    ready = 'waagent_worker_state{worker="fabric_client",waagent_worker_state="READY"} 1'
    assert ready in lines
    assert any(
        line.startswith("waagent_extension_operation_state{") and line.endswith(" 1")
        for line in lines
    )
