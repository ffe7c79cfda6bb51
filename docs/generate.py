"""What the documentation takes from the code: the states of a fiber, the slot's protocol, the floors, and reports.

    python docs/generate.py             rewrite those parts
    python docs/generate.py --check     status 1 if one of them is out of date (the tests run this)

A generated part of a page stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import itertools
import linecache
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# behind an installed swapco: where there is none, one that was built in place
sys.path.append(str(ROOT))
# packages whose own __init__ is empty
PACKAGES = ("_core", "_loop", "_streams")


def states() -> str:
    """A table of every legal transition, in the order of the code."""
    from swapco._core.states import TRANSITIONS

    rows = [("from", "to", "transition", "when")]
    rows += [(step.source, step.to, f"`{step.name}`", step.cause) for step in TRANSITIONS]
    return table(rows)


def diagram() -> str:
    """The same as a matrix: rows are left, columns are entered."""
    from swapco._core.states import STATES, TRANSITIONS

    names = {(step.source, step.to): f"`{step.name}`" for step in TRANSITIONS}
    entered = [state for state in STATES if any(to == state for _, to in names)]
    rows = [("", *(f"→ {state}" for state in entered))]
    rows += [(f"**{state}**", *(names.get((state, to), "") for to in entered)) for state in STATES]
    return table(rows)


def slot() -> str:
    """The modes of the slot word, and every change of it."""
    from swapco._core.slot import MODES, TRANSITIONS

    modes = [("mode", "meaning"), *((f"`{name}`", meaning) for name, meaning in MODES)]
    rows = [("transition", "from", "to", "who", "how", "when")]
    rows += [
        (
            f"`{step.name}`", f"{step.owner_before}, {step.mode_before}", f"{step.owner_after}, {step.mode_after}",
            step.actor, step.how, step.cause,
        )
        for step in TRANSITIONS
    ]  # fmt: skip
    return f"{table(modes)}\n\n{table(rows)}"


def slot_diagram() -> str:
    """The same as a diagram: a node for each side that may own the slot, in each mode that it may be in."""
    from swapco._core.slot import TRANSITIONS

    arrows = []
    for step in TRANSITIONS:
        for before, after in itertools.product(_sides(step.owner_before), _sides(step.owner_after)):
            if before == after == "home" and step.mode_before == step.mode_after:
                continue  # there is one home
            other = " to another worker" if (before, step.mode_before) == (after, step.mode_after) else ""
            arrows.append((f"{before}_{step.mode_before}", f"{after}_{step.mode_after}", step.name + other))
    nodes = dict.fromkeys(node for arrow in arrows for node in arrow[:2])
    lines = [f"    {node} : {node.replace('_', ', ')}" for node in nodes]
    lines += [f"    {before} --> {after} : {what}" for before, after, what in arrows]
    return "```mermaid\nstateDiagram-v2\n    direction LR\n" + "\n".join(lines) + "\n```"


def _sides(owner: str) -> tuple[str, ...]:
    return ("home", "worker") if owner == "any" else (owner,)


def floors() -> str:
    """The floors as they stand, the top one first."""
    lines = []
    for number, floor in reversed(list(enumerate(_constant(ROOT / "tests" / "test_floors.py", "FLOORS")))):
        names = [name.replace(".", "/") or "__init__" for name in floor if name not in PACKAGES]
        lines.append(f"{number:2}  {', '.join(names)}")
    return "```text\n" + "\n".join(lines) + "\n```"


def _constant(path: Path, name: str) -> Any:
    """The value of a constant in a source file, which is not imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} does not define {name}")


def table(rows: list[tuple[str, ...]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def report(page: str, name: str) -> str:
    """What the program above prints for a failing schedule: the Python block before it, run as ``test_NAME.py``."""
    text = (DOCS / page).read_text()
    above = text[: text.index(f"<!-- generated: report-{name} -->")]
    source = re.findall(r"^```python\n(.*?)^```$", above, re.M | re.S)[-1]
    file = f"test_{name}.py"
    # reports show lines
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": f"test_{name}"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, file, "exec"), namespace)
    return f"```text\n{namespace['result'].report.rstrip()}\n```"


GENERATED = {
    "semantics.md": {"states": states, "matrix": diagram},
    "futex-swap.md": {"slot": slot, "slot-diagram": slot_diagram},
    "HACKING.md": {"floors": floors},
    "testing-tutorial.md": {
        f"report-{name}": partial(report, "testing-tutorial.md", name) for name in ("cache", "pool")
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Rewrite the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if something would")
    check = parser.parse_args().check
    stale = []
    for page, parts in GENERATED.items():
        path = DOCS / page
        before = path.read_text()
        after = before
        for name, make in parts.items():
            begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
            if begin not in after or end not in after:
                sys.exit(f"{path}: the comments around the generated part {name!r} are gone")
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
            part = f"{begin}\n\n{make()}\n\n{end}"
            after = pattern.sub(lambda _, part=part: part, after)
        if after != before:
            stale.append(page)
            if not check:
                path.write_text(after)
    for page in stale:
        print(f"docs/{page}: {'out of date: run python docs/generate.py' if check else 'rewritten'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
