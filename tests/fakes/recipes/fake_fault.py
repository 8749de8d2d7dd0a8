"""Recipes that fail while they convert, or between two calibration batches; see `backends._faults`."""

import shutil

from harness.precision.recipe import CAST, Conversion, Recipe
from harness.specs import Precision


def convert(request):
    from harness.backends._faults import happen  # of the fakes: there once backends were looked for

    for number, _ in enumerate(request.calibration.batches(50)):
        if number:
            happen("calibrate")
    happen("convert")
    shutil.copy(request.source, request.target)
    return Conversion()


RECIPES = (
    Recipe(
        name="faulty",
        precision=Precision.INT8,
        writes=CAST,
        summary="the same file, after calibration images were read",
        convert=convert,
        needs_calibration=True,
    ),
)
