"""A worker's life as the supervisor sees it: hello, heartbeats, leases, stop, reload, and every way
to end.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Callable

from tests.harness.supervising import Supervising

Room = Callable[[str, str], Path]


def doing(what: str) -> Callable[[dict[str, object]], bool]:
    return lambda beat: beat["doing"] == what


def beats(supervisor: Supervising, name: str) -> int:
    return len(supervisor.said(name, "heartbeat"))


def until(
    claim: Callable[[], object], what: Callable[[], object], deadline_s: float = 60.0
) -> None:
    ends_at = time.monotonic() + deadline_s
    while not claim():
        assert time.monotonic() < ends_at, what()
        time.sleep(0.01)


def test_heartbeats_go_on_while_a_one_shot_waits(supervisor: Supervising, room: Room) -> None:
    supervisor.beat_s = 0.2
    code = """
        def main(worker):
            was_true = worker.wait(lambda: False, 3, "waiting for what never comes")
            worker.supervisor.done(f"it came: {was_true}")
    """

    process = supervisor.start("oneshot", code=room("oneshot", code))

    assert supervisor.wait_for("oneshot", "done")["summary"] == "it came: False"
    assert beats(supervisor, "oneshot") >= 3
    lease = supervisor.said("oneshot", "busy")[0]
    assert lease["reason"] == "waiting for what never comes" and lease["seconds"] > 3
    assert process.wait(60) == 0


def test_heartbeats_go_on_while_a_tool_runs_and_a_lease_holds(
    supervisor: Supervising, room: Room, tmp_path: Path
) -> None:
    supervisor.beat_s = 0.5
    code = f"""
        def main(worker):
            worker.supervisor.ready()
            finished = worker.run(["sh", "-c", "while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo gone"], deadline_s=60)
            worker.supervisor.done(finished.stdout.decode().strip())
    """

    supervisor.start("oneshot", code=room("oneshot", code))
    supervisor.wait_for("oneshot", "busy")
    seen = beats(supervisor, "oneshot")
    until(lambda: beats(supervisor, "oneshot") >= seen + 3, supervisor.log_text)
    (tmp_path / "go").touch()

    assert supervisor.wait_for("oneshot", "done")["summary"] == "gone"
    leases = supervisor.said("oneshot", "busy")
    assert [lease["reason"] for lease in leases][0] == "running sh" and leases[0]["seconds"] > 60
    assert leases[-1]["seconds"] == 0 and leases[-1]["progress"] > leases[0]["progress"]


def test_heartbeats_fall_on_multiples_of_the_period(supervisor: Supervising, room: Room) -> None:
    supervisor.beat_s = 0.5
    code = """
        def main(worker):
            worker.supervisor.tell(endpoint="168.63.129.16", answered_at=1.5)
            worker.supervisor.ready()
            worker.loop.run()
    """
    supervisor.start("resident", code=room("resident", code))

    phases = [0.5]
    while min(phases) > 0.1 and len(phases) < 40:  # who looks may be late, again and again
        seen = beats(supervisor, "resident")
        until(lambda seen=seen: beats(supervisor, "resident") > seen, lambda: "no heartbeat")
        phases.append(time.monotonic() % 0.5)

    assert min(phases) <= 0.1, phases
    assert supervisor.said("resident", "heartbeat")[-1]["facts"] == {
        "endpoint": "168.63.129.16",
        "answered_at": 1.5,
    }


def test_a_supervisor_that_reads_nothing_stops_no_worker(
    supervisor: Supervising, room: Room
) -> None:
    supervisor.beat_s = 0.02
    code = """
        def main(worker):
            turns = 0
            def turn():
                nonlocal turns
                turns += 1
                worker.supervisor.doing(f"turn {turns}")
                if turns == 20 * 20:
                    worker.supervisor.want("other", [1, 2])
                    worker.log.info("worked all the time turns=%d", turns)
            worker.supervisor.tell(long="x" * 400, longer="y" * 400)
            worker.loop.every(0.02, turn)
            worker.supervisor.ready()
            worker.loop.run()
    """
    supervisor.start("resident", code=room("resident", code))
    supervisor.wait_for("resident", "ready")

    supervisor.pause()
    until(
        lambda: "worked all the time" in supervisor.log_text(), supervisor.log_text, deadline_s=60
    )
    assert not supervisor.said("resident", "want")
    supervisor.resume()

    assert supervisor.wait_for("resident", "want")["numbers"] == [1, 2]
    seen = beats(supervisor, "resident")
    assert seen < 400  # most did not fit and were dropped
    until(lambda: beats(supervisor, "resident") > seen, lambda: "no heartbeat after the pause")


def test_stop_calls_on_stop_and_ends_with_zero(supervisor: Supervising, room: Room) -> None:
    code = """
        def main(worker):
            worker.loop.on_stop(lambda: worker.log.info("saying farewell"))
            worker.supervisor.ready()
            worker.loop.run()
            worker.log.info("left the loop")
    """
    process = supervisor.start("resident", code=room("resident", code))
    supervisor.wait_for("resident", "ready")

    supervisor.tell("resident", "a message of the future", field=1)
    supervisor.tell("resident", "stop")

    assert process.wait(60) == 0
    assert re.search(r"saying farewell\n.*left the loop\n", supervisor.log_text())


def test_sigterm_is_a_stop(supervisor: Supervising, room: Room) -> None:
    process = supervisor.start(
        "resident",
        code=room(
            "resident", "def main(worker):\n    worker.supervisor.ready()\n    worker.loop.run()\n"
        ),
    )
    supervisor.wait_for("resident", "ready")

    process.terminate()

    assert process.wait(60) == 0


def test_an_unforeseen_error_is_logged_whole_and_ends_with_70(
    supervisor: Supervising, room: Room
) -> None:
    code = "def main(worker):\n    worker.loop.after(0, lambda: 1 / 0)\n    worker.loop.run()\n"
    process = supervisor.start("resident", code=room("resident", code))

    assert process.wait(20) == 70
    lines = supervisor.log_text().splitlines()
    form = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR resident\[" + str(process.pid) + r"\] "
    )
    assert len(lines) > 4 and all(form.match(line) for line in lines)
    assert lines[-1].endswith("| ZeroDivisionError: division by zero")


def test_an_exit_status_of_its_own_is_kept(supervisor: Supervising, room: Room) -> None:
    process = supervisor.start(
        "resident", code=room("resident", "def main(worker):\n    raise SystemExit(77)\n")
    )

    assert process.wait(20) == 77


def test_the_end_of_the_control_connection_ends_the_worker(
    supervisor: Supervising, room: Room
) -> None:
    process = supervisor.start(
        "resident",
        code=room(
            "resident", "def main(worker):\n    worker.supervisor.ready()\n    worker.loop.run()\n"
        ),
    )
    supervisor.wait_for("resident", "ready")

    supervisor._connections["resident"].shutdown(socket.SHUT_RDWR)

    assert process.wait(60) == 75


def test_a_reload_brings_configuration_and_a_new_log(supervisor: Supervising, room: Room) -> None:
    code = """
        def main(worker):
            worker.supervisor.on_configure(lambda: worker.log.info("now %s %s", worker.configuration["Logs.Verbose"], worker.numbers))
            worker.supervisor.ready()
            worker.loop.run()
    """
    supervisor.start("resident", configuration={"Logs.Verbose": False}, code=room("resident", code))
    supervisor.wait_for("resident", "ready")
    new_log = supervisor.paths.log.with_suffix(".new")

    descriptor = os.open(new_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    supervisor.tell(
        "resident",
        "configure",
        (descriptor,),
        configuration={"Logs.Verbose": True},
        numbers=[80, 443],
        verbose=False,
    )
    os.close(descriptor)

    until(lambda: "now True (80, 443)" in new_log.read_text(), supervisor.log_text)
    assert "now" not in supervisor.log_text()


def test_a_change_that_nobody_applies_ends_the_worker(supervisor: Supervising, room: Room) -> None:
    process = supervisor.start(
        "resident",
        code=room(
            "resident", "def main(worker):\n    worker.supervisor.ready()\n    worker.loop.run()\n"
        ),
    )
    supervisor.wait_for("resident", "ready")

    supervisor.tell("resident", "configure", configuration={}, numbers=[], verbose=False)
    supervisor.tell("resident", "configure", configuration={"a": 1}, numbers=[], verbose=False)

    assert process.wait(60) == 0


def test_the_stack_of_a_hung_worker_is_handed_over(supervisor: Supervising, room: Room) -> None:
    code = """
        import time
        def hang():
            time.sleep(1000)
        def main(worker):
            worker.supervisor.ready()
            hang()
    """
    process = supervisor.start("resident", code=room("resident", code))
    supervisor.wait_for("resident", "ready")

    def text() -> str:
        return supervisor.stack("resident")

    def ask_and_look() -> bool:
        process.send_signal(signal.SIGUSR1)
        return "in hang" in text()

    until(ask_and_look, text)
    assert re.search(r"line \d+ in hang\n.*line \d+ in main\n", text())
    assert process.poll() is None


def test_log_lines_and_stacks_reach_the_worker(supervisor: Supervising, room: Room) -> None:
    code = """
        def main(worker):
            worker.supervisor.on_log(lambda lines: worker.log.info("told %s", lines))
            worker.supervisor.on_stack(lambda name, text: worker.log.info("stack %s %s", name, text))
            worker.supervisor.ready()
            worker.loop.run()
    """
    supervisor.start("resident", code=room("resident", code))
    supervisor.wait_for("resident", "ready")

    supervisor.tell("resident", "log", lines=["one", "two"])
    supervisor.tell("resident", "stack", worker="provisioner", text="File x line 3")

    until(lambda: "stack provisioner File x line 3" in supervisor.log_text(), supervisor.log_text)
    assert "told ['one', 'two']" in supervisor.log_text()


def test_the_end_of_a_child_is_told(supervisor: Supervising, room: Room) -> None:
    code = """
        import subprocess
        def main(worker):
            worker.supervisor.ready()
            slow = subprocess.Popen(["sh", "-c", "sleep 0.5; exit 3"])
            killed = subprocess.Popen(["sh", "-c", "kill -9 $$"])
            worker.loop.on_exit(slow.pid, lambda status: worker.log.info("slow ended with %d", status))
            worker.loop.on_exit(killed.pid, lambda status: worker.log.info("killed ended with %d", status))
            worker.loop.run()
    """
    supervisor.start("resident", code=room("resident", code))

    until(lambda: "slow ended with 3" in supervisor.log_text(), supervisor.log_text)
    assert "killed ended with -9" in supervisor.log_text()


def test_an_idle_worker_wakes_for_its_heartbeats_only(supervisor: Supervising, room: Room) -> None:
    supervisor.beat_s = 1.0
    code = """
        def main(worker):
            client = worker.bus.client("nobody")
            client.subscribe("nobody.value", lambda value, revision: None)
            worker.supervisor.ready()
            worker.loop.run()
    """
    supervisor.bind("nobody")
    process = supervisor.start("resident", code=room("resident", code))
    supervisor.wait_for("resident", "ready")
    supervisor.wait_for("resident", "heartbeat")

    def switches() -> int:
        texts = [
            (task / "status").read_text() for task in Path(f"/proc/{process.pid}/task").iterdir()
        ]
        return sum(
            int(line.split()[1])
            for text in texts
            for line in text.splitlines()
            if "_ctxt_switches" in line
        )

    counted: list[int] = []
    # a busy machine interrupts it now and then
    while len(counted) < 8 and min(counted, default=99) > 15:
        before, seen = switches(), beats(supervisor, "resident")
        until(lambda seen=seen: beats(supervisor, "resident") >= seen + 5, lambda: "no heartbeats")
        counted.append(switches() - before)

    assert min(counted) <= 15, counted
