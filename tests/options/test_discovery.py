"""What is found, is found quickly: gates and recipes are asked for hundreds of times while tests are collected."""

import importlib.metadata

from harness.gates import list_gates
from harness.options import discovery
from harness.precision import list_recipes


def test_installed_packages_are_searched_once_for_each_room(monkeypatch):
    asked = []
    real = importlib.metadata.entry_points
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **group: asked.append(group) or real(**group))
    discovery._entry_points.cache_clear()
    for _ in range(20):
        list_gates()
        list_recipes()
    assert len(asked) == 2
