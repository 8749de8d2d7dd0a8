"""Run in a process of its own: import TensorRT's real bindings from a folder and print what they offer, as JSON.

usage: describe_bindings.py FOLDER MODULE < JSON of names
"""

import importlib
import inspect
import json
import sys
import warnings


def describe(module, wanted):
    """Return name -> docstring or kind for every (class, member) that exists; class "" is the module."""
    found = {}
    for owner, name in wanted:
        at = module
        for part in filter(None, owner.split(".")):
            at = getattr(at, part, None)
        if at is not None and hasattr(at, name):
            member = inspect.getattr_static(at, name)
            made = getattr(at, name)
            text = made.__init__.__doc__ if inspect.isclass(made) else getattr(made, "__doc__", None)
            found[f"{owner}.{name}"] = (text or "") if not isinstance(member, property) else ""
    return found


def main():
    folder, name = sys.argv[1:]
    sys.path.insert(0, folder)
    warnings.simplefilter("ignore")
    module = importlib.import_module(name)
    from harness.backends.trt.api import CALIBRATORS, VENDOR_RECIPES, LogLines, TrtApi, make_logger
    from harness.backends.trt.calibrator import CalibrationStore, make_calibrator

    api = TrtApi(module)
    asked = json.load(sys.stdin)
    logger = make_logger(module, LogLines())
    logger.log(module.ILogger.Severity.ERROR, "text")

    class Feed:
        def next_address(self, names):
            return [len(names)]

    made = {}
    for recipe in filter(api.has_calibrator, CALIBRATORS):
        store = CalibrationStore(b"before")
        calibrator = make_calibrator(api, recipe, Feed(), store, batch_size=8, quantile=0.5, cutoff=0.25)
        calibrator.write_calibration_cache(memoryview(b"after"))
        answers = [calibrator.get_batch_size(), calibrator.get_batch(["a", "b"]), calibrator.get_algorithm().name]
        cache = [calibrator.read_calibration_cache().decode(), store.written.decode()]
        made[recipe] = [*answers, *cache, calibrator.get_quantile(), calibrator.get_regression_cutoff()]
    print(
        json.dumps(
            {
                "version": api.version,
                "weak": api.has_weak_typing,
                "strong": api.has_strong_typing,
                "rtx": api.is_rtx,
                "bf16": api.has_bf16,
                "bf16_flag": api.has_bf16_flag,
                "calibrators": [recipe for recipe in VENDOR_RECIPES if api.has_calibrator(recipe)],
                "flags": {recipe: api.network_flags(recipe) for recipe in ("none", "trt-entropy2", "runtime")},
                "made": made,
                "explicit_batch": hasattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"),
                "tactics": api.tactic_names(api.tactic_mask(("JIT_CONVOLUTIONS", "EDGE_MASK_CONVOLUTIONS"))),
                "members": describe(module, asked),
            }
        )
    )


main()
