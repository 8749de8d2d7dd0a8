"""Which cases a run should have had: those that its selection asks for and a baseline is stored of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.backends import list_backends
from harness.errors import BaselineError
from harness.options.values import HarnessOptions
from harness.records import CPU, Record
from harness.run.plan import Plan, chosen_recipes
from harness.run.settings import Environments
from harness.specs import GIVEN_RECIPE, Case, ModelSpec
from harness.store.baseline_files import Baseline
from harness.store.baselines import BaselineStore
from harness.store.selecting import parts_for

GONE = "model {} is not among the models any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """A case with a baseline on this machine's types of device."""

    baseline: Baseline
    parts: tuple[str, ...]  # predictions, times


class ExpectedCases:
    """The cases that the options ask for and a baseline is stored of, for this machine's types of device.

    What counts is model, backend, precision, recipe, device and data set. A damaged file is passed over here: it is
    named when its own case runs.
    """

    def __init__(self, plan: Plan, options: HarnessOptions, environments: Environments) -> None:
        self._plan, self._environments = plan, environments
        self._found: dict[str, _Expected] = {}  # by case id
        store = BaselineStore(Path(options.baseline_dir))
        host = environments.of("", CPU)
        hosts = [host, *(replace(host, device=name, device_name=name) for name in plan.device_names)]
        for part in parts_for(store, hosts, dataset=options.data.name, split=options.data.split):
            try:
                baseline = store.read(part.path)
            except BaselineError:
                continue
            if is_asked(baseline, plan.models, options):
                known = self._found.get(baseline.case.id)
                parts = (*(known.parts if known else ()), part.kind)
                self._found[baseline.case.id] = _Expected(baseline=baseline, parts=parts)

    def completed(self, records: Iterable[Record], *, recorded_at: str) -> list[Record]:
        """Return the records of a run with what baselines say of unsupported cases, and one of every absent case."""
        found = [
            replace(record, baseline_parts=self._found[record.case.id].parts)
            if record.unsupported and record.case.id in self._found
            else record
            for record in records
        ]
        planned = {case.id for case in self._plan.cases}
        absent = [one for case_id, one in self._found.items() if case_id not in planned]
        return [*found, *(self._absent(one, recorded_at) for one in absent)]

    def _absent(self, expected: _Expected, recorded_at: str) -> Record:
        case, accepted = expected.baseline.case, expected.baseline.accepted
        return Record(
            case=case,
            environment=accepted.environment if case.device != CPU else self._environments.of(case.backend, CPU),
            recorded_at=recorded_at,
            absent=self._reason(case),
            baseline_parts=expected.parts,
        )

    def _reason(self, case: Case) -> str:
        plan = self._plan
        if case.model not in plan.models:
            return GONE.format(case.model)
        if plan.models[case.model].is_quantized and case.recipe != GIVEN_RECIPE:
            return f"model {case.model} is a quantized file now, which runs as given alone"
        if case.backend not in list_backends():
            return f"no backend is called {case.backend} here"
        if case.backend in plan.left_out:
            return f"backend {case.backend} cannot run here: {plan.left_out[case.backend]}"
        return f"backend {case.backend} has no device {case.device} here"


def is_asked(baseline: Baseline, models: Mapping[str, ModelSpec], options: HarnessOptions) -> bool:
    """Tell whether a run of these models and options would have the case of a baseline, if it still could.

    A built engine has one case; that it bears a model's name asks for none of the model's.
    """
    case, spec = baseline.case, models.get(baseline.case.model)
    asks_for_all = not (options.models or options.engines)
    is_model = spec is not None or (asks_for_all and baseline.is_of_models_folder)
    is_backend = options.backends == ("auto",) or case.backend in options.backends
    is_device = options.device in ("auto", case.device)
    if not (is_model and is_backend and is_device):
        return False
    if spec is not None and spec.engine is not None:
        engine = spec.engine.backend, spec.engine.precision, GIVEN_RECIPE
        return (case.backend, case.precision, case.recipe) == engine
    is_given = case.recipe == GIVEN_RECIPE and (spec is None or spec.is_quantized)
    return case.precision in options.precisions and (is_given or case.recipe in chosen_recipes(options, case.precision))
