"""`/usr/sbin/waagent` loaded as handlers load it: the names they use, their odd results, no trace."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from waagent.distro import installation

ROOT = Path(__file__).resolve().parents[3]
NAMES = """LibDir Openssl GuestAgentName GuestAgentLongName GuestAgentVersion ProtocolVersion Config MyDistro
WaAgent HttpProxyConfigString LoggerInit Log Error Warn LogToConsole LogToFile LogIfVerbose LogWithPrefix
ErrorWithPrefix LogWithPrefixIfVerbose NoLog ThrottleLog myLogger GetFileContents SetFileContents
AppendFileContents ReplaceFileContentsAtomic ReplaceStringInFile GetLineStartingWith Run RunGetOutput
RunSendStdin CreateDir ChangeOwner GetMyDistro DistInfo ConfigurationProvider WALAEventOperation
AddExtensionEvent"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The installed command, beside an environment that holds the module."""
    environment = tmp_path / "lib/waagent"
    place = environment / "lib/python3.99/site-packages/waagent/etc/compat"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "etc/compat/waagent.py", place)
    file = tmp_path / "waagent"
    interpreter = f"{environment}/bin/python"
    module = "waagent.supervisor.commands.main"
    file.write_bytes(installation.command_file("waagent", interpreter, module))
    return file


@pytest.fixture
def waagent(command: Path, tmp_path: Path) -> Iterator[Any]:
    """The module, as `load_source('waagent', '/usr/sbin/waagent')` makes it."""
    loader = SourceFileLoader("waagent", str(command))
    spec = importlib.util.spec_from_loader("waagent", loader)
    assert spec is not None
    module = ModuleType("waagent")
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    code = loader.get_code("waagent")
    assert code is not None
    exec(code, module.__dict__)  # what the loader of real handlers does
    sys.dont_write_bytecode = before
    module.LibDir = str(tmp_path)  # type: ignore[attr-defined]
    yield module


def test_all_names_are_there(waagent: Any) -> None:
    assert [name for name in NAMES.split() if not hasattr(waagent, name)] == []
    assert waagent.WALAEventOperation.UnIsntall == waagent.WALAEventOperation.Uninstall


def test_loading_says_and_leaves_nothing(command: Path, tmp_path: Path) -> None:
    script = (
        "import sys, types; sys.dont_write_bytecode = True; m = types.ModuleType('waagent');"
        f"exec(compile(open({str(command)!r}).read(), 'x', 'exec'), m.__dict__);"
        " m.Log('before LoggerInit'); print(m.LibDir)"
    )
    before = sorted(tmp_path.rglob("*"))

    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", script], cwd="/", capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("/var/lib/waagent\n", "")
    assert sorted(tmp_path.rglob("*")) == before


def test_log_follows_the_last_logger_init(waagent: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        waagent.LoggerInit(str(tmp_path / name), "/dev/null")
        waagent.Log(f"in {name}\nsecond")
        waagent.Error("bad")

    lines = (tmp_path / "two").read_text().splitlines()
    assert [line[20:] for line in lines] == ["in two", "second", "ERROR:bad"]
    assert "in two" not in (tmp_path / "one").read_text()


def test_files_give_the_odd_results(waagent: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "file")

    assert waagent.SetFileContents(path, "a\n") == 0
    assert waagent.AppendFileContents(path, "key=b\n") == 0
    assert waagent.GetFileContents(path) == "a\nkey=b\n"
    assert waagent.GetFileContents(path, asbin=True) == b"a\nkey=b\n"
    assert waagent.ReplaceFileContentsAtomic(path, "key=c\n") is None
    assert waagent.GetLineStartingWith("key", path) == "key=c"
    assert waagent.SetFileContents("/nonexistent/x", "a") is None
    assert waagent.GetFileContents("/nonexistent/x") is None


def test_commands_give_code_and_text(waagent: Any) -> None:
    assert waagent.Run("exit 3", chk_err=False) == 3
    assert waagent.RunGetOutput("echo a; echo b >&2; exit 4", False) == (4, "a\nb\n")
    assert waagent.RunSendStdin("cat", b"secret") == (0, "secret")
    assert waagent.RunSendStdin(["cat"], b"x", use_shell=False) == (0, "x")


def test_an_event_is_a_file_for_the_agent(waagent: Any, tmp_path: Path) -> None:
    waagent.AddExtensionEvent('A "b"', waagent.WALAEventOperation.Enable, True, message="<x>")

    (event,) = (tmp_path / "events").glob("*.tld")
    text = event.read_text()
    assert event.stem.isdigit() and 'Value="Enable"' in text and "&lt;x&gt;" in text


def test_the_configuration_is_read_by_key(waagent: Any, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text("# c\nHttpProxy.Host=None\nOS.EnableRDMA=y # note\nX=a=b\n")

    read = waagent.ConfigurationProvider(str(conf))

    assert (read.get("HttpProxy.Host"), read.yes("OS.EnableRDMA"), read.get("X")) == (
        None,
        True,
        "a=b",
    )
    with pytest.raises(Exception, match="Missing configuration"):
        waagent.ConfigurationProvider("/nonexistent")
