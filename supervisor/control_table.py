"""Every message of the control channel: who may send it, when, what it is parsed to, and which
method of the supervisor takes it.

What is not in the table is refused and counted, and so is what its parser does not take. A parser
gets the sender, as the kernel names it, and the map of the packet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from waagent.protocol.base.records import Record
from waagent.protocol.control import ControlError
from waagent.supervisor import events as e

WORKER, ANYONE, ROOT = "worker", "anyone", "root"
NEW, GREETED, ANY = "new", "greeted", "any"
"""A worker's connection before and after its hello; `any` where the phase does not matter."""
_NUMBERS_LIMIT = 64
_TEXT_LIMIT = 400  # characters; longer ones are cut
FACTS_LIMIT = 16
_FACT_NAME_LIMIT = 40


class Sender(Record):
    """Who is at the other end: the kernel's word, and the worker's name where the pid is one's."""

    pid: int
    uid: int
    gid: int
    worker: str = ""
    """Empty: a stranger."""


class Greeting(Record):
    """A worker's first word: the build that its code is of."""

    build: str


class Request(Record):
    """What a person asks for; ``name`` is a worker's, where one is meant."""

    name: str = ""


def parse_hello(sender: Sender, said: Mapping[str, Any]) -> Greeting:
    """build"""
    return Greeting(_text(said, "build"))


def parse_ready(sender: Sender, said: Mapping[str, Any]) -> e.Ready:
    """(nothing)"""
    return e.Ready(sender.worker, sender.pid)


def parse_heartbeat(sender: Sender, said: Mapping[str, Any]) -> e.Beat:
    """doing, progress, and facts (at most FACTS_LIMIT plain values) or none"""
    facts = said.get("facts", {})
    if not isinstance(facts, dict) or len(facts) > FACTS_LIMIT:
        raise ControlError("facts are no small map")
    cut = {
        key[:_FACT_NAME_LIMIT]: value[:_TEXT_LIMIT] if isinstance(value, str) else value
        for key, value in facts.items()
        if isinstance(key, str) and (value is None or isinstance(value, (str, int, float)))
    }
    return e.Beat(sender.worker, sender.pid, _text(said, "doing"), _whole(said, "progress"), cut)


def parse_busy(sender: Sender, said: Mapping[str, Any]) -> e.Busy:
    """seconds, reason, progress"""
    seconds = said.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ControlError("seconds is no number")
    if not math.isfinite(seconds):
        raise ControlError("seconds is not finite")
    reason, progress = _text(said, "reason"), _whole(said, "progress")
    return e.Busy(sender.worker, sender.pid, seconds, reason, progress)


def parse_done(sender: Sender, said: Mapping[str, Any]) -> e.Done:
    """summary: the result"""
    return e.Done(sender.worker, sender.pid, _text(said, "summary"))


def parse_want(sender: Sender, said: Mapping[str, Any]) -> e.Wanted:
    """name, and numbers (whole ones, at most 64) or none"""
    numbers = said.get("numbers") or []
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise ControlError("numbers is no list of whole numbers")
    return e.Wanted(sender.worker, _text(said, "name"), tuple(numbers[:_NUMBERS_LIMIT]))


def parse_unwant(sender: Sender, said: Mapping[str, Any]) -> e.Unwanted:
    """name"""
    return e.Unwanted(sender.worker, _text(said, "name"))


def parse_request(sender: Sender, said: Mapping[str, Any]) -> Request:
    """(nothing)"""
    return Request()


def parse_named_request(sender: Sender, said: Mapping[str, Any]) -> Request:
    """name: of a worker"""
    return Request(_text(said, "name"))


class Message(Record):
    """One row of the table."""

    sender: str
    phase: str
    parse: Callable[[Sender, Mapping[str, Any]], Any]
    method: str
    """Of `Supervisor`, called with the connection and what was parsed."""


MESSAGES: dict[str, Message] = {
    #                    sender  phase    parser               method of the supervisor
    "hello":     Message(WORKER, NEW,     parse_hello,         "greet"),
    "ready":     Message(WORKER, GREETED, parse_ready,         "take_word"),
    "heartbeat": Message(WORKER, GREETED, parse_heartbeat,     "take_word"),
    "busy":      Message(WORKER, GREETED, parse_busy,          "take_word"),
    "done":      Message(WORKER, GREETED, parse_done,          "take_word"),
    "want":      Message(WORKER, GREETED, parse_want,          "take_word"),
    "unwant":    Message(WORKER, GREETED, parse_unwant,        "take_word"),
    "list":      Message(ANYONE, ANY,     parse_request,       "answer_list"),
    "restart":   Message(ROOT,   ANY,     parse_named_request, "answer_restart"),
    "stop":      Message(ROOT,   ANY,     parse_request,       "answer_stop"),
    "reload":    Message(ROOT,   ANY,     parse_request,       "answer_reload"),
}  # fmt: skip


def refusal(kind: str, sender: Sender, phase: str) -> str | None:
    """Why ``sender`` may not say this, or None. ``phase`` is NEW or GREETED, of a worker."""
    message = MESSAGES.get(kind)
    if message is None:
        return f"unknown message {kind[:40]!r}"
    if message.sender == WORKER and not sender.worker:
        return "only a worker may say this"
    if message.sender == WORKER and message.phase != phase:
        return f"not now ({phase})"
    if message.sender == ROOT and sender.uid != 0:
        return "only root may do this"
    if message.sender == ROOT and sender.worker:
        return "a worker may not do this, whatever its uid"
    return None


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str):
        raise ControlError(f"{key} is no text")
    return value[:_TEXT_LIMIT]


def _whole(said: Mapping[str, Any], key: str) -> int:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ControlError(f"{key} is no whole number")
    return value
