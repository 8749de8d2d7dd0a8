"""The fire drill: faults planted in copies, each of which must turn red. `suites/test_fire_drill.py` runs it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness import __version__
from harness.records import FireDrill, Status
from harness.run.cases import utc_now
from harness.run.drill.bench import Bench
from harness.run.drill.plant import Found, found_of
from harness.run.drill.plants import PLANTS
from harness.run.drill.sound import sound_night
from harness.run.sharding import options_of_run
from harness.store.drills import save_fire_drill

__all__ = ["CONTROL", "PLANTS", "Drill", "open_drill"]
CONTROL = "control"  # the night in which nothing is planted


class Drill:
    """One drill: its bench, and what became of the plants. What was not run counts as not red."""

    def __init__(self, report_dir: Path) -> None:
        """Begin one, whose result goes beside the runs. Raises: ConfigError when it cannot be written."""
        self._report_dir = report_dir
        self._folder = Path(tempfile.mkdtemp(prefix="harness-drill-"))
        self.bench = Bench(self._folder)
        self._found: dict[str, Found] = {}
        self._is_control_green = False
        self._save()  # a drill that is killed is not red at anything

    def control(self) -> str:
        """Return why the night without a plant is red, "" where it is green as it must be."""
        records = [*self.bench.control, *sound_night().judged()]
        red = [f"{one.case.id} {one.status}: {one.reason}" for one in records if one.status is not Status.PASSED]
        self._is_control_green = not red
        return "; ".join(red)

    def run(self, name: str) -> Found:
        """Plant a fault, and return whether it turned red as it must."""
        plant = next(plant for plant in PLANTS if plant.name == name)
        found = self._found[name] = found_of(plant, plant.act(self.bench))
        return found

    def finish(self) -> FireDrill:
        """Write the result, remove what was planted, and return what came of it. Raises: ConfigError."""
        shutil.rmtree(self._folder, ignore_errors=True)
        return self._save()

    def _save(self) -> FireDrill:
        red = {name for name, found in self._found.items() if found.is_red}
        missed = [plant.name for plant in PLANTS if plant.name not in red]
        drill = FireDrill(
            at=utc_now(),
            version=__version__,
            n_plants=len(PLANTS),
            n_red=len(red),
            missed=(*missed, *(() if self._is_control_green else (CONTROL,))),
        )
        save_fire_drill(self._report_dir, drill)
        return drill


def open_drill(o: Any, *, root: Path, called_in: Path | None = None) -> Drill:
    """Begin the drill of a command line; of its options only the report folder counts. As `options_of_run`."""
    return Drill(Path(options_of_run(o, root=root, called_in=called_in).report_dir))
