"""Breaks one line at a time of the pure decisions and looks whether a unit test notices.

`python tests/mutate.py [MODULE ...]`, or `make mutate`. Each mutant is one change (an operator, a
number, a condition, one action for another, a statement left out), made in a process of its own
with a time limit, in memory: the checkout stays as it is. Survivors are printed with
their line; those that tests/mutants_accepted.txt explains are said to be so. Exit status 1: fewer
than 95 % of a module's mutants died, or one action for another was not noticed.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import resource
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = ROOT / "tests" / "mutants_accepted.txt"
LEAST_PERCENT = 95.0
LIMIT_S = 5  # CPU of one mutant: an endless loop is noticed
MOST_MUTANTS = 900  # of one module; more are sampled, always the same ones
ALWAYS = "one for another"  # never left out, and never a survivor


@dataclass(frozen=True)
class Target:
    """A module, the files that test it (patterns), and the kinds of records that it makes, alike ones together."""

    module: str
    tests: tuple[str, ...]
    declared: str
    """The file that declares the records."""
    families: tuple[tuple[str, ...], ...]


TARGETS = (
    Target(
        "supervisor/transitions.py",
        ("tests/unit/supervisor/test_transition*.py",),
        "supervisor/events.py",
        (
            (
                "Start",
                "Open",
                "Abandon",
                "Configure",
                "SayStop",
                "TakeStack",
                "Kill",
                "Note",
                "Leave",
            ),
        ),
    ),
    Target(
        "workers/extension_runner/plan.py",
        ("tests/unit/runner/test_plan*.py",),
        "workers/extension_runner/plan.py",
        (("Fetch", "Run", "Forget", "Refuse"),),
    ),
    Target(
        "workers/provisioner/plan.py",
        ("tests/unit/provision/test_plan*.py",),
        "workers/provisioner/plan.py",
        (),
    ),
)


@dataclass(frozen=True)
class Mutant:
    """One change: the module's new text, and how a person finds the place."""

    kind: str
    function: str
    line: int
    before: str
    after: str
    source: str
    number: int = 0
    """Of those that look alike in one function."""

    @property
    def name(self) -> str:
        """Stable while the code is: function, old and new text."""
        same = f" #{self.number}" if self.number else ""
        return f"{self.function}{same} | {self.before} -> {self.after}"


_ORDERS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_SUMS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}


def fields_of(source: str) -> dict[str, tuple[str, ...]]:
    """The fields of each class in ``source``, in order."""
    return {
        node.name: tuple(
            one.target.id
            for one in node.body
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        )
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def other_records(
    call: ast.Call, families: tuple[tuple[str, ...], ...], fields: dict[str, tuple[str, ...]]
) -> Iterator[ast.expr]:
    """``call``, a record's constructor, as each other record of its family, with what fits of the
    values.
    """
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    for family in families:
        if name not in family:
            continue
        given = dict(zip(fields[name], call.args))
        given.update({one.arg: one.value for one in call.keywords if one.arg})
        for other in family:
            if other != name:
                changed = copy.deepcopy(call)
                if isinstance(changed.func, ast.Attribute):
                    changed.func.attr = other
                elif isinstance(changed.func, ast.Name):
                    changed.func.id = other
                spare: ast.expr = next(iter(given.values()), ast.Constant(""))
                changed.args = [given.get(field, spare) for field in fields[other]]
                changed.keywords = []
                yield changed


def expressions(
    node: ast.AST, target: Target, fields: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in the place of ``node``, each with the kind of change."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _ORDERS[type(operator)]:
                changed = copy.deepcopy(node)
                changed.ops[place] = other()
                yield "comparison", changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = copy.deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", changed_bool
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "constant", ast.Constant(node.value + 1)
        yield "constant", ast.Constant(node.value - 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negation", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        changed_sum = copy.deepcopy(node)
        changed_sum.op = _SUMS[type(node.op)]()
        yield "arithmetic", changed_sum
    elif isinstance(node, ast.IfExp):
        changed_if = copy.deepcopy(node)
        changed_if.body, changed_if.orelse = changed_if.orelse, changed_if.body
        yield "negation", changed_if
    elif isinstance(node, ast.Call):
        for other in other_records(node, target.families, fields):
            yield ALWAYS, other


def statements(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """What may stand in the place of a statement."""
    if isinstance(node, (ast.If, ast.While)) and not isinstance(node.test, ast.Constant):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield "negation", changed
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    is_kept = isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Assign)
        and any(
            isinstance(one, (ast.Attribute, ast.Subscript)) for one in ast.walk(node.targets[0])
        )
    )
    if is_call or is_kept or isinstance(node, (ast.Continue, ast.Break)):
        yield "left out", ast.Pass()
    elif isinstance(node, ast.Return) and node.value is None:
        yield "left out", ast.Pass()
    elif isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant):
        yield "returns None", ast.Return(ast.Constant(None))


class _Places(ast.NodeVisitor):
    """Every place inside functions that can be changed: (function, parent, field, index, node)."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ast.AST, str, int | None, ast.AST]] = []
        self._function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._function = self._function, node.name
        for place, statement in enumerate(node.body):
            is_docstring = place == 0 and isinstance(statement, ast.Expr)
            if not is_docstring or not isinstance(getattr(statement, "value", None), ast.Constant):
                self._take(node, "body", place, statement)
        self._function = before

    def generic_visit(self, node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_comment", "ctx"):
                continue
            if isinstance(value, list):
                for place, one in enumerate(value):
                    if isinstance(one, ast.AST):
                        self._take(node, field, place, one)
            elif isinstance(value, ast.AST):
                self._take(node, field, None, value)

    def _take(self, parent: ast.AST, field: str, place: int | None, node: ast.AST) -> None:
        if self._function and not isinstance(parent, ast.FormattedValue):
            self.found.append((self._function, parent, field, place, node))
        self.visit(node)


def mutants_of(target: Target, source: str) -> list[Mutant]:
    """Every mutant, in the order of the lines."""
    tree = ast.parse(source)
    fields = fields_of((ROOT / target.declared).read_text("utf-8"))
    places = _Places()
    places.visit(tree)
    found: list[Mutant] = []
    alike: dict[str, int] = {}
    for function, parent, field, place, node in places.found:
        changes: list[tuple[str, ast.AST]] = list(expressions(node, target, fields))
        if isinstance(node, ast.stmt):
            changes += statements(node)
        for kind, other in changes:
            _put(parent, field, place, other)
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, field, place, node)
            before, after = (ast.unparse(one).split("\n")[0] for one in (node, other))
            one = Mutant(kind, function, getattr(node, "lineno", 0), before, after, text)
            number = alike[one.name] = alike.get(one.name, -1) + 1
            found.append(Mutant(*(getattr(one, f) for f in _SHOWN), number=number))
    return sorted(found, key=lambda one: one.line)


_SHOWN = ("kind", "function", "line", "before", "after", "source")


def _put(parent: ast.AST, field: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[place] = node


def sample(found: list[Mutant]) -> list[Mutant]:
    """At most MOST_MUTANTS, the same ones in each run."""
    rest = sorted(
        (one for one in found if one.kind != ALWAYS), key=lambda one: zlib.crc32(one.name.encode())
    )
    kept = {one.name for one in rest[:MOST_MUTANTS]}
    return [one for one in found if one.kind == ALWAYS or one.name in kept]


def run_tests(target: Target, source: str) -> None:
    """In a process of its own: the tests against ``source``; never returns. Status 0: all passed."""
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    import pytest

    try:
        put_in_place(target, source)
        tests = [str(file) for one in target.tests for file in sorted(ROOT.glob(one))]
        os._exit(min(int(pytest.main([*_PYTEST, *tests])), 1))
    finally:
        os._exit(1)


_PYTEST = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist")


def put_in_place(target: Target, source: str) -> None:
    """Let ``source`` be the module that everybody imports from now on."""
    name = f"waagent.{target.module[:-3].replace('/', '.')}"
    module = ModuleType(name)
    module.__file__ = str(ROOT / target.module)
    sys.modules[name] = module
    exec(compile(source, module.__file__, "exec"), vars(module))
    room, _, last = name.rpartition(".")
    setattr(importlib.import_module(room), last, module)


def survivors(target: Target, chosen: list[Mutant]) -> list[Mutant]:
    """Those whose tests passed."""
    running: dict[int, Mutant] = {}
    left, found = list(chosen), []
    while left or running:
        while left and len(running) < (os.cpu_count() or 1):
            mutant = left.pop(0)
            pid = os.fork()
            if pid == 0:
                run_tests(target, mutant.source)
            running[pid] = mutant
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            found.append(mutant)
    return sorted(found, key=lambda one: one.line)


def load_beforehand(target: Target) -> None:
    """What a mutant's tests need and the module does not change: once, before the forks."""
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    tree = ast.parse((ROOT / target.module).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            importlib.import_module(node.module)


def accepted() -> dict[str, str]:
    """Reasons by module and mutant: lines `module: function | before -> after: reason`, where the
    reason stands behind the last tab.
    """
    reasons = {}
    for line in ACCEPTED.read_text("utf-8").splitlines() if ACCEPTED.exists() else ():
        name, tab, reason = line.rpartition("\t")
        if tab and not line.startswith("#"):
            reasons[name.strip()] = reason
    return reasons


def look_at(target: Target) -> bool:
    """Run one module's mutants and print what came out; whether enough of them died."""
    source, started = (ROOT / target.module).read_text("utf-8"), time.monotonic()
    whole = Mutant("none", "", 0, "", "", ast.unparse(ast.parse(source)))
    if not survivors(target, [whole]):
        print(f"{target.module}: its tests fail, or take over {LIMIT_S} s, without any change")
        return False
    every = mutants_of(target, source)
    chosen = sample(every)
    alive, reasons = survivors(target, chosen), accepted()
    unknown = [one for one in alive if f"{target.module}: {one.name}" not in reasons]
    for one in alive:
        reason = reasons.get(f"{target.module}: {one.name}")
        print(f"{target.module}:{one.line}: {one.kind}, in {one.function}")
        print(f"    - {one.before}\n    + {one.after}")
        print(f"    {'survived' if reason is None else 'accepted: ' + reason}")
    dead = len(chosen) - len(alive)
    percent = 100.0 * dead / len(chosen)
    swapped = [one for one in chosen if one.kind == ALWAYS]
    swaps_left = sum(one.kind == ALWAYS for one in unknown)
    print(
        f"{target.module}: {dead} of {len(chosen)} mutants died ({percent:.1f} %; {len(every)}"
        f" possible), {len(alive) - len(unknown)} survivors explained, {len(unknown)} not;"
        f" one record for another: {len(swapped) - swaps_left} of {len(swapped)} noticed;"
        f" {time.monotonic() - started:.0f} s"
    )
    return percent >= LEAST_PERCENT and not swaps_left


def main(wanted: list[str]) -> int:
    """Look at the modules ``wanted``, or at all."""
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(ROOT))
    results = []
    for target in TARGETS:
        if not wanted or target.module in wanted:
            load_beforehand(target)
            results.append(look_at(target))
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
