"""The main job. The wheel holds this folder as `harness.suites`: `harness run`, or `pytest --pyargs harness.suites`."""
