"""What a person or a program reads of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from waagent.lab.extension.orders import Order

WIDTH = 80
_MIB = 1 << 20
_SHOWN = 12
PASSED, FAILED, NO_BOX, TIME_LIMIT = 0, 1, 3, 4


class Telling:
    """Prints each event as it comes. Invariant: no line is longer than a terminal."""

    def __init__(self, order: Order, findings: Sequence[str], *, is_json: bool) -> None:
        self._order, self._findings, self._is_json = order, findings, is_json
        self._events: list[Mapping[str, Any]] = []
        self._timed_out = False
        self._passed: bool | None = None
        self._no_box = ""
        if not is_json:
            network = "network of this machine" if order.internet else "own network"
            asked = f"profile {order.profile}" if order.profile else "its own profile"
            self._line(f"{order.name} {order.version}, {asked}, in a box: {network},")
            self._line("overlay of /, nothing kept")

    @property
    def has_verdict(self) -> bool:
        """The box came to its end."""
        return self._passed is not None

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the box."""
        self._events.append(event)
        kind = event["event"]
        if kind == "verdict":
            self._passed = bool(event["passed"])
        elif kind == "no_box":
            self._no_box = str(event["text"])
        elif kind == "end" and event["timed_out"]:
            self._timed_out = True
        tell = getattr(self, f"_tell_{kind}", None)
        if tell is not None and not self._is_json:
            tell(event)

    def end(self, status: int) -> int:
        """The last lines, and the exit status of the command."""
        result = self._result(status)
        if self._is_json:
            words = {PASSED: "passed", FAILED: "failed", NO_BOX: "no box", TIME_LIMIT: "time limit"}
            document = {
                "schema": 1,
                "handler": self._order.name,
                "version": self._order.version,
                "result": words[result],
                "events": self._events,
                "lint": list(self._findings),
                "files": self._order.results,
            }
            print(json.dumps(document, indent=1))
            return result
        if result == NO_BOX:
            self._line(f"the box could not be made: {self._no_box}", cut=False)
            return result
        for number, finding in enumerate(self._findings[:_SHOWN]):
            self._line(f"{'lint' if not number else '':<9} {finding}", cut=False)
        left = next((event for event in self._events if event["event"] == "left"), {})
        verdict = "PASS" if result == PASSED else "FAIL"
        seconds = self._events[-1]["at_s"] if self._events else 0
        peak = left.get("peak_bytes", 0) / _MIB
        self._line(
            f"{verdict} in {seconds:.2f} s, peak {peak:.0f} MiB,"
            f" {left.get('peak_processes', 0)} processes."
        )
        self._line(f"Output and files: {self._order.results}/", cut=False)
        return result

    def _result(self, status: int) -> int:
        if status == NO_BOX or self._no_box:
            return NO_BOX
        if self._timed_out:
            return TIME_LIMIT
        return PASSED if self._passed else FAILED

    def _line(self, text: str, *, cut: bool = True) -> None:
        print(text[:WIDTH] if cut else text, flush=True)

    def _tell_begin(self, event: Mapping[str, Any]) -> None:
        sequence = f", ConfigSequenceNumber={event['sequence']}"
        is_enable = event["operation"] == "enable"
        words = f"{event['command']}{sequence if is_enable else ''}"
        self._line(f"{event['at_s']:6.2f} {event['operation']:<9} {words}")

    def _tell_output(self, event: Mapping[str, Any]) -> None:
        self._line(
            f"{event['at_s']:6.2f} {'':<8}{'!|' if event['is_error'] else ' |'} {event['line']}"
        )

    def _tell_end(self, event: Mapping[str, Any]) -> None:
        how = event["how"] or "exit 0"
        self._line(
            f"{event['at_s']:6.2f} {event['operation']:<9} {how} after {event['elapsed_s']:.2f} s"
        )

    def _tell_status(self, event: Mapping[str, Any]) -> None:
        said, file = event.get("status"), event["file"]
        if said:
            message = said["formattedMessage"]["message"].splitlines()
            text = f'{said["status"]}, code {said["code"]}: "{message[0] if message else ""}"'
            after = f"({file} is valid)"
        else:
            text = str(event.get("error") or "no status file was written")
            after = f"({file})"
        self._line(f"{event['at_s']:6.2f} {'status':<9} {text}")
        self._line(f"{'':<17}{after}")

    def _tell_warning(self, event: Mapping[str, Any]) -> None:
        self._line(f"{event['at_s']:6.2f} {'warning':<9} {event['text']}", cut=False)

    def _tell_refused(self, event: Mapping[str, Any]) -> None:
        self._line(f"{event['at_s']:6.2f} {'refused':<9} {event['text']}", cut=False)

    def _tell_left(self, event: Mapping[str, Any]) -> None:
        made = [f"{word} {path}" for word, path in event["changed"]]
        self._listed("changed", made or ["nothing"])
        names = sorted({name for _, name in event["processes"]})
        count = len(event["processes"])
        if count:
            self._line(
                f"{'left':<9} {count} process{'es' if count > 1 else ''}: {' '.join(names)}"
                " (background work, it may stay)"
            )
        if event["no_way_out"]:
            self._line(
                f"{'network':<9} {event['no_way_out']} attempts had no way out: the box has no"
                " internet (--internet)"
            )
        self._listed("denied", event["denied"] or ["nothing"])
        if made and not event["denied"]:
            self._line(f"{'':<9} --profile strict denies each of these changes")

    def _listed(self, word: str, items: Sequence[str]) -> None:
        for number, item in enumerate(items[:_SHOWN]):
            self._line(f"{word if not number else '':<9} {item}")
        if len(items) > _SHOWN:
            self._line(f"{'':<9} and {len(items) - _SHOWN} more")
