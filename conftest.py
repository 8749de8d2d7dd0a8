"""Makes `pytest suites/` work from a bare checkout."""

pytest_plugins = ("harness.plugin",)
