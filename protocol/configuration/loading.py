"""Read waagent.conf and conf.d/*.conf into typed values, with every finding named; nothing in them
stops the agent.

Standard library only and quick to import: the supervisor, waagent and waagent-ps load it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from waagent.protocol.base.records import Record
from waagent.protocol.configuration import lines, values
from waagent.protocol.configuration.options import GONE, OPTIONS, Value

FILE_LIMIT_BYTES = 1024 * 1024
FINDINGS_LIMIT = 200  # a foreign file must not fill the log

WARNING, NOTE = "warning", "note"

ELSEWHERE = (
    "/usr/share/oem/waagent.conf",
    "/usr/local/etc/waagent.conf",
    "/usr/share/defaults/waagent/waagent.conf",
)
"""Where distributions put the file (Flatcar, FreeBSD, Clear Linux); read when /etc has none.
Source: spec/configuration.md, section 1.
"""


class Places(Protocol):
    """The part of ``paths.Paths`` that is needed here."""

    @property
    def configuration(self) -> Path: ...

    @property
    def configuration_folder(self) -> Path: ...

    def under(self, absolute: str) -> Path: ...


class Finding(Record):
    """One remark on the configuration. Its text is `file:line: option: problem: remedy`."""

    file: str
    line: int
    """0: the file as a whole."""
    option: str
    problem: str
    remedy: str
    level: str = WARNING
    """warning: something written there does not hold. note: worth knowing."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.option}: {self.problem}: {self.remedy}"


class Loaded(Record):
    """The configuration in force. ``values`` has every option of the table."""

    values: dict[str, Value]
    findings: tuple[Finding, ...]
    origins: dict[str, str]
    """`file:line` for each option that a file sets; the others have their default."""
    files: tuple[str, ...] = ()
    """The files read, in order."""


class _Given(Record):
    file: str
    line: int
    text: str | None


def load(
    paths: Places, path: Path | None = None, *, drop_ins: bool = True, judge_owner: bool = True
) -> Loaded:
    """The configuration of ``path`` (None: the place of this system) and of conf.d; never raises
    for what it finds there.
    """
    findings: list[Finding] = []
    files = [path if path is not None else _main_file(paths)]
    if drop_ins:
        files.extend(_drop_ins(paths.configuration_folder, findings))
    given: dict[str, _Given] = {}
    read: list[str] = []
    for file in files:
        data = _read(file, findings, judge_owner)
        if data is not None:
            read.append(str(file))
            _take(str(file), data, given, findings)
    return _settled(given, findings, tuple(read))


def load_bytes(data: bytes, name: str = "waagent.conf") -> Loaded:
    """The same of one file's content; for tests, tools and drafts."""
    findings: list[Finding] = []
    given: dict[str, _Given] = {}
    _take(name, data, given, findings)
    return _settled(given, findings, (name,))


def _settled(
    given: Mapping[str, _Given], findings: list[Finding], files: tuple[str, ...]
) -> Loaded:
    typed, origins = _typed(given, findings)
    for remark in values.settle(typed, frozenset(origins)):
        item = given.get(remark.key, _Given("waagent.conf", 0, None))
        findings.append(Finding(item.file, item.line, remark.key, remark.problem, remark.remedy))
    place = {file: number for number, file in enumerate(files)}
    findings.sort(key=lambda finding: (place.get(finding.file, -1), finding.line))
    return Loaded(typed, tuple(_limited(findings)), origins, files)


def defaults() -> dict[str, Value]:
    """Every option's default."""
    return load_bytes(b"").values


def for_worker(configuration: Mapping[str, Value], keys: Iterable[str]) -> dict[str, Value]:
    """The options that ``keys`` names; a key that ends in a dot is a prefix."""
    wanted = tuple(keys)
    prefixes = tuple(key for key in wanted if key.endswith("."))
    return {
        name: value
        for name, value in configuration.items()
        if name in wanted or (prefixes and name.startswith(prefixes))
    }


def _main_file(paths: Places) -> Path:
    for candidate in (paths.configuration, *(paths.under(place) for place in ELSEWHERE)):
        if os.path.lexists(candidate):
            return candidate
    return paths.configuration


def _drop_ins(folder: Path, findings: list[Finding]) -> list[Path]:
    try:
        names = sorted(
            name
            for name in os.listdir(folder)
            if name.endswith(".conf") and not name.startswith(".")
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        findings.append(
            Finding(
                str(folder),
                0,
                "(folder)",
                f"cannot be read, {error.strerror}",
                "make it a readable folder, or remove it",
            )
        )
        return []
    return [folder / name for name in names]


def _read(path: Path, findings: list[Finding], judge_owner: bool) -> bytes | None:
    def complain(problem: str, remedy: str) -> None:
        findings.append(Finding(str(path), 0, "(file)", problem, remedy))

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        complain(
            "the file is missing, every option has its default", "install it, or write an empty one"
        )
        return None
    except (OSError, ValueError) as error:
        complain(
            f"cannot be read, {error.strerror if isinstance(error, OSError) else error}",
            "make it readable",
        )
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            complain("is not a regular file, every option has its default", "put a text file there")
            return None
        if judge_owner and (status.st_uid != 0 or status.st_mode & 0o022):
            complain(
                f"uid {status.st_uid} mode {status.st_mode & 0o7777:04o}, others than root can"
                " change what root executes",
                f"chown root {path}; chmod go-w {path}",
            )
        if status.st_size > FILE_LIMIT_BYTES:
            complain(
                f"has {status.st_size} bytes, only the first {FILE_LIMIT_BYTES} are read",
                "make it shorter",
            )
        return os.read(descriptor, FILE_LIMIT_BYTES)
    except OSError as error:
        complain(f"cannot be read, {error.strerror}", "make it readable")
        return None
    finally:
        os.close(descriptor)


def _take(file: str, data: bytes, given: dict[str, _Given], findings: list[Finding]) -> None:
    """Put the assignments of one file over those of the files before it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        findings.append(
            Finding(file, 1, "(file)", "is UTF-16, nothing in it is used", "save it as UTF-8")
        )
        return
    assignments, complaints = lines.read_lines(data)
    findings.extend(
        Finding(file, item.line, item.key, item.problem, item.remedy) for item in complaints
    )
    for item in assignments:
        if item.key not in OPTIONS:
            findings.append(_unknown(file, item))
            continue
        before = given.get(item.key)
        if before is not None and before.file == file:
            problem = f"is set in line {before.line} already, this line wins"
            findings.append(Finding(file, item.line, item.key, problem, "remove one of the two"))
        if OPTIONS[item.key].use == GONE:
            findings.append(
                Finding(
                    file,
                    item.line,
                    item.key,
                    "has no effect any more",
                    OPTIONS[item.key].about.rstrip("."),
                    NOTE,
                )
            )
        given[item.key] = _Given(file, item.line, item.value)


def _unknown(file: str, item: lines.Assignment) -> Finding:
    near = _nearest(item.key)
    remedy = f"did you mean {near}" if near else "remove the line"
    return Finding(file, item.line, lines.shown_key(item.key), "unknown option, ignored", remedy)


def _nearest(key: str) -> str:
    folded = {name.lower(): name for name in OPTIONS}
    if key.lower() in folded:
        return folded[key.lower()]
    import difflib  # 3 ms, and only a file with a mistake needs it

    close = difflib.get_close_matches(key.lower()[:80], folded, 1, 0.7)
    return folded[close[0]] if close else ""


def _typed(
    given: Mapping[str, _Given], findings: list[Finding]
) -> tuple[dict[str, Value], dict[str, str]]:
    typed: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for name, option in sorted(OPTIONS.items(), key=lambda item: (bool(item[1].follows), item[0])):
        typed[name] = values.default_of(option, typed)
        item = given.get(name)
        if item is None or (item.text is None and not option.none_means_off):
            continue
        try:
            typed[name] = None if item.text is None else values.typed(option, item.text)
        except values.Invalid as error:
            typed[name] = None if option.none_means_off else typed[name]
            problem = f"{error.problem}, using {values.printed(typed[name])}"
            findings.append(Finding(item.file, item.line, name, problem, error.remedy))
        else:
            origins[name] = f"{item.file}:{item.line}"
    return dict(sorted(typed.items())), origins


def _limited(findings: list[Finding]) -> list[Finding]:
    if len(findings) <= FINDINGS_LIMIT:
        return findings
    left = len(findings) - FINDINGS_LIMIT
    file = findings[FINDINGS_LIMIT].file
    return [
        *findings[:FINDINGS_LIMIT],
        Finding(file, 0, "(file)", f"{left} more findings", "correct these first"),
    ]
