"""Cases that a fleet should have and no shard runs: their times are accepted of one of its types of device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from harness.errors import BaselineError, ConfigError
from harness.options.values import HarnessOptions
from harness.run.expected import GONE, is_asked
from harness.specs import Case, ModelSpec
from harness.store.baseline_files import TIMES
from harness.store.baselines import BaselineStore, slug
from harness.store.shard_plans import UnplannedCase


def unplanned_cases(
    options: HarnessOptions, *, device_type: str, models: Mapping[str, ModelSpec], planned: Collection[Case]
) -> tuple[UnplannedCase, ...]:
    """Return the cases that a device's options ask for, that times are accepted of, and that are not planned.

    Raises: ConfigError for a damaged file of a case that no shard runs: nothing else would name it.
    """
    if options.baseline == "ignore":
        return ()
    store, ids = BaselineStore(Path(options.baseline_dir)), {case.id for case in planned}
    found = []
    for path in sorted((store.root / TIMES / slug(device_type)).glob("*.json")):
        if path.stem in ids:
            continue
        try:
            baseline = store.read(path)
        except BaselineError as error:
            raise ConfigError(f"{error}: no shard runs its case, and whether one should cannot be told") from error
        if is_asked(baseline, models, options):
            case = baseline.case
            reason = GONE.format(case.model) if case.model not in models else "no shard of the plan has it"
            found.append(UnplannedCase(case=case, device_type=device_type, reason=reason))
    return tuple(found)
