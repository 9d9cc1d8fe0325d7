"""The hand that carries out `installation`'s plan, says each step, and notes what it wrote, so that
`uninstall` finds it. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from waagent.distro import installation, service_registration
from waagent.distro.installation import (
    MANIFEST,
    ROOMS,
    Accounts,
    Copy,
    Environment,
    InstallationError,
    Link,
    Options,
    Register,
    Write,
)

_PIP_LIMIT_S = 1800  # a slow mirror; lxml and cryptography may have to be built on FreeBSD
_SAY_S = 10  # a step that takes longer says every so often that it goes on
_FOR_COMPILERS = ("*.h", "*.c", "*.pxd", "*.pyx", "*.pxi")
_NOT_OURS = ("pip", "pip-*", "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack")


def say(text: str) -> None:
    """A line of progress, at once: what our tools print comes between."""
    print(text, flush=True)


class Installer:
    """Carries out a plan. Invariant: what was written stands in the manifest before the service is
    touched.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._written: dict[str, str] = {}
        self._diverted: list[str] = []
        self._before = read_manifest(options.private)
        self._runs: int | None = None

    def carry_out(self, steps: tuple[object, ...]) -> None:
        """Every step. Raises InstallationError at the first that fails."""
        started, noted = time.monotonic(), False
        # before anything is written: a running agent notices that by itself
        for step in steps:
            if isinstance(step, Register):
                self._runs = service_registration.serving_pid(step.paths[0])
        for number, step in enumerate(steps, 1):
            head = f"[{number}/{len(steps)}]"
            if isinstance(step, Register) and not noted:
                self._note()
                noted = True
            self._step(step, head)
        if not noted:
            self._note()
        say(f"installed in {time.monotonic() - started:.0f} s: {self._options.private}")

    def _step(self, step: object, head: str) -> None:
        if isinstance(step, Environment):
            say(f"{head} environment {step.final}")
            build_environment(step)
        elif isinstance(step, (Write, Copy)):
            say(f"{head} write {step.path}")
            self._divert(step.path)
            content = step.content if isinstance(step, Write) else self._content(step)
            self._put(step, content)
        elif isinstance(step, Link):
            say(f"{head} link {step.path} -> {step.target}")
            put_link(step.path, step.target)
            self._written[self._shown(step.path)] = f"-> {step.target}"
        elif isinstance(step, Accounts):
            say(f"{head} accounts {' '.join(line.split()[1] for line in step.lines)}")
            service_registration.make_accounts(step.lines)
        elif isinstance(step, Register):
            say(f"{head} service ({step.init_system})")
            service_registration.register(step, self._runs, say)

    def _content(self, step: Copy) -> bytes:
        content = (self._options.checkout / step.source).read_bytes()
        for old, new in step.replaced:
            content = content.replace(old.encode(), new.encode())
        return content

    def _put(self, step: Write | Copy, content: bytes) -> None:
        name, path = self._shown(step.path), step.path
        present = path.read_bytes() if path.is_file() else None
        was_ours = present is not None and _digest(present) == self._before.get(name)
        if step.keep and present is not None and present != content and not was_ours:
            path = path.with_name(path.name + ".new")
            say(f"      kept yours, the new one is {path.name}")
            name = self._shown(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        temporary.write_bytes(content)
        temporary.chmod(step.mode)
        temporary.rename(path)
        self._written[name] = _digest(content)

    def _divert(self, path: Path) -> None:
        """A file of another Debian package steps aside, so that its removal does not take ours."""
        if self._options.root != Path("/") or not path.exists() or not shutil.which("dpkg"):
            return
        owner = subprocess.run(
            ["dpkg", "-S", str(path)], capture_output=True, text=True, check=False
        ).stdout
        if owner and not owner.startswith("diversion by") and ":" in owner:
            say(f"      belongs to package {owner.split(':')[0]}: diverted to {path.name}.distrib")
            execute(["dpkg-divert", "--local", "--quiet", "--rename", "--add", str(path)], 60)
            self._diverted.append(str(path))

    def _shown(self, path: Path) -> str:
        return "/" + str(path.relative_to(self._options.root))

    def _note(self) -> None:
        """Write the manifest; what an earlier version installed and this one does not goes."""
        for name, noted in self._before.items():
            path = self._options.root / name.lstrip("/")
            if name.startswith("/") and name not in self._written and path.is_file():
                if not noted.startswith("-> ") and _digest(path.read_bytes()) == noted:
                    path.unlink()
                    say(f"      removed {path}: no longer part of the agent")
        kept = [*self._before.get("diverted", []), *self._diverted]
        manifest = {
            **self._written,
            "diverted": sorted(set(kept)),
            "init_system": installation.init_system_of(self._options.init_system),
        }
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (self._options.private / MANIFEST).write_text(text + "\n", encoding="ascii")


def read_manifest(private: Path) -> dict[str, Any]:
    """What an installation noted; empty when there is none."""
    try:
        found: dict[str, Any] = json.loads((private / MANIFEST).read_text("ascii"))
    except (OSError, ValueError):
        return {}
    return found


def uninstall(private: Path, root: Path, *, force: bool) -> None:
    """Remove what the manifest names; a file that was changed since stays unless ``force``. Raises
    InstallationError.
    """
    manifest = read_manifest(private)
    if not manifest:
        raise InstallationError(
            "no installation by setup.py", str(private / MANIFEST), "name its --prefix and --root"
        )
    for name, noted in manifest.items():
        if not name.startswith("/"):
            continue
        path = root / name.lstrip("/")
        if path.is_symlink() or noted.startswith("-> "):
            path.unlink(missing_ok=True)
        elif path.is_file() and (force or _digest(path.read_bytes()) == noted):
            path.unlink()
        elif path.is_file():
            say(f"kept, it was changed: {name}")
            continue
        else:
            continue
        say(f"removed {name}")
        _remove_empty_above(path, root)
    for name in manifest.get("diverted", []):
        execute(["dpkg-divert", "--local", "--quiet", "--rename", "--remove", name], 60)
        say(f"the other package's {name} is back")
    shutil.rmtree(private)
    say(f"removed {private}")


def _remove_empty_above(path: Path, root: Path) -> None:
    """Folders of ours that are empty now: those that have our name."""
    for folder in path.parents:
        if "waagent" not in folder.name and folder.name != "sandbox.d" or folder == root:
            return
        try:
            folder.rmdir()
        except OSError:
            return


def build_environment(step: Environment) -> None:
    """An environment with its launchers, in place of the one that is there. Raises
    InstallationError.
    """
    shutil.rmtree(step.target, ignore_errors=True)
    step.target.parent.mkdir(parents=True, exist_ok=True)
    old_umask = os.umask(0o022)  # workers under other uids import from here
    try:
        say(f"      virtual environment by {step.python}")
        execute([step.python, "-m", "venv", str(step.target)], 300, hint="install python3-venv")
        _fetch(step)
        _copy_rooms(step)
    finally:
        os.umask(old_umask)
    old = step.final.with_name("waagent.old")
    shutil.rmtree(old, ignore_errors=True)
    if step.final.exists():
        shutil.move(str(step.final), str(old))  # a copy where overlayfs cannot rename a folder
    step.target.rename(step.final)
    shutil.rmtree(old, ignore_errors=True)


def _fetch(step: Environment) -> None:
    where = str(step.wheels) if step.wheels else "the package index"
    say(f"      {' '.join(step.requirements)} from {where}")
    source = ["--no-index", "--find-links", str(step.wheels)] if step.wheels else []
    pip = [str(step.target / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    options = ["--disable-pip-version-check", *([] if step.compile else ["--no-compile"]), *source]
    execute(
        [*pip, *options, *step.requirements],
        _PIP_LIMIT_S,
        hint="see pip's message; without a network: --wheels FOLDER",
    )


def _copy_rooms(step: Environment) -> None:
    """Our code is plain files: no build back end is needed, nor the links of the checkout."""
    (packages,) = (step.target / "lib").glob("python3*/site-packages")
    package = packages / "waagent"
    package.mkdir()
    for name in ("__init__.py", "__main__.py", "py.typed"):
        shutil.copyfile(step.checkout / "waagent" / name, package / name)
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for room in (room for room in ROOMS if room != "etc"):  # its files go to their own places
        shutil.copytree(step.checkout / room, package / room, ignore=unwanted)
    for pattern in (*_NOT_OURS, "distutils-precedence.pth", "*/tests"):
        for path in packages.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for pattern in _FOR_COMPILERS:
        for path in packages.rglob(pattern):
            path.unlink()
    for script in (step.target / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()  # they name the folder they were made in; ours are the launchers
    settings = step.target / "pyvenv.cfg"
    lines = settings.read_text("utf-8").splitlines(keepends=True)
    settings.write_text("".join(line for line in lines if not line.startswith("command")), "utf-8")
    (step.target / "sbin").mkdir()
    for name, content in step.launchers:
        (step.target / "sbin" / name).write_bytes(content)
        (step.target / "sbin" / name).chmod(0o755)
    if step.compile:
        argv = [str(step.target / "bin" / "python"), "-m", "compileall", "-q"]
        execute([*argv, "-s", str(step.target), "-p", str(step.final), str(package)], 600)


def put_link(path: Path, target: str) -> None:
    """Make ``path`` a link, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)


def execute(argv: list[str], deadline_s: int, hint: str = "see its message above") -> None:
    """Run a tool that prints what it has to say; a long one says that it goes on. Raises
    InstallationError.
    """
    started = time.monotonic()
    try:
        # from a folder without modules: Python looks for some of them where it is
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd="/") as process:
            while True:
                try:
                    status = process.wait(_SAY_S)
                    break
                except subprocess.TimeoutExpired:
                    taken_s = time.monotonic() - started
                    say(f"      ... {Path(argv[0]).name} goes on, {taken_s:.0f} s")
                    if taken_s > deadline_s:
                        process.kill()
    except OSError as error:
        raise InstallationError(f"{argv[0]} failed", str(error), hint) from error
    if status != 0:
        raise InstallationError(f"{' '.join(argv[:4])} failed", f"exit status {status}", hint)


def check_python(python: str) -> None:
    """Whether environments can be made with it. Raises InstallationError."""
    done = subprocess.run(
        [python, "-m", "ensurepip", "--version"], capture_output=True, check=False, timeout=60
    )
    if done.returncode != 0:
        version = ".".join(map(str, sys.version_info[:2]))
        raise InstallationError(
            f"Python {version} here has no venv", python, "install python3-venv and try again"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
