"""Stubs say what the documentation promises; that they are right otherwise is for stubtest and mypy."""

from __future__ import annotations

import ast

import pytest
from helpers import ROOT, in_fiber

import swapco

CORE = ROOT / "swapco" / "_core"


def class_in(stub: str, name: str) -> ast.ClassDef:
    (found,) = [
        node
        for node in ast.parse((CORE / stub).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return found


@pytest.mark.parametrize("method", ["statistics", "add_instrument", "remove_instrument"])
@in_fiber
def test_what_a_fibers_scheduler_can_do(method: str) -> None:
    """docs/threads.md: ``current_fiber().scheduler.statistics()``."""
    scheduler = swapco.current_fiber().scheduler
    (declared,) = [
        node.returns
        for node in class_in("fiber.pyi", "FiberCore").body
        if isinstance(node, ast.FunctionDef) and node.name == "scheduler"
    ]
    assert isinstance(declared, ast.Name)
    assert declared.id == type(scheduler).__name__
    assert callable(getattr(scheduler, method))
    assert method in [
        node.name for node in class_in("scheduler.pyi", declared.id).body if isinstance(node, ast.FunctionDef)
    ]
