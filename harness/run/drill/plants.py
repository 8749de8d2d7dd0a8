"""All plants of a drill, in the order in which they are planted."""

from __future__ import annotations

from harness.run.drill import directions, engines, judging, models
from harness.run.drill.plant import Plant

PLANTS: tuple[Plant, ...] = (*models.PLANTS, *engines.PLANTS, *judging.PLANTS, *directions.PLANTS)
