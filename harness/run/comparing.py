"""What a case is compared with: FP32 of its backend, the reference backend, the emulation of its file."""

from __future__ import annotations

from dataclasses import replace

from harness.errors import HarnessError
from harness.measure.evidence import drift_between, flips_between_runs, pictures_of_changed, size_checks
from harness.measure.samples import drift_of_outputs, read_outputs
from harness.options.values import HarnessOptions
from harness.records import CPU, TensorDrift
from harness.run.case import CaseRun
from harness.run.cases import Cases
from harness.specs import REFERENCE_BACKEND, Precision

PICTURE_ERRORS = (HarnessError, OSError, ValueError, ArithmeticError, MemoryError)  # of files that others decode


class Comparing:
    """Measures what stands beside a case, and keeps what the comparison found with the case."""

    def __init__(self, cases: Cases, options: HarnessOptions) -> None:
        self._cases, self._options = cases, options

    def with_fp32(self, run: CaseRun) -> None:
        """Compare outputs with FP32 of the same backend. Raises: HarnessError."""
        fp32 = self._cases.fp32_of(run.case, backend=run.case.backend, device=run.case.device)
        if fp32 is run or run.comparison.drift is not None:
            return
        kind, reference = run.model.output_kind, fp32.case.id
        run.comparison = replace(
            run.comparison,
            drift=drift_between(fp32.outputs(), run.outputs(), kind=kind, reference=reference),
            flips=flips_between_runs(fp32.accuracy(), run.accuracy(), self._options.data, run.model),
        )

    def with_reference(self, run: CaseRun) -> None:
        """Score FP32 on the reference backend. Raises: HarnessError."""
        self._cases.fp32_of(run.case, backend=REFERENCE_BACKEND, device=CPU)

    def samples_with_fp32(self, run: CaseRun) -> None:
        """Compare the outputs of samples with FP32 of the same backend. Raises: HarnessError."""
        fp32 = self._cases.fp32_of(run.case, backend=run.case.backend, device=run.case.device)
        self._add_drifts(run, fp32)
        if fp32 is not run and self._options.has_data and not run.comparison.pictures:
            try:
                found = pictures_of_changed(fp32.samples(), run.samples(), self._options.data)
            except PICTURE_ERRORS:  # they show what was judged, and are no part of it
                return
            run.comparison = replace(run.comparison, pictures=found)

    def samples_with_reference(self, run: CaseRun) -> None:
        """Compare the outputs of samples with FP32 on the reference backend. Raises: HarnessError."""
        self._add_drifts(run, self._cases.fp32_of(run.case, backend=REFERENCE_BACKEND, device=CPU))

    def samples_with_emulation(self, run: CaseRun) -> None:
        """Compare the outputs of samples with the float emulation of a Q/DQ file, where that runs."""
        artifact = run.prepare().artifact
        if artifact is None or not artifact.is_qdq or run.comparison.kernel_drifts:
            return
        try:
            found = _drifts(run, self._cases.emulation_of(run.case, artifact))
        except HarnessError:  # it splits a drift that is judged and told all the same
            return
        run.comparison = replace(run.comparison, kernel_drifts=found)

    def _add_drifts(self, run: CaseRun, other: CaseRun) -> None:
        known = run.comparison.tensor_drifts
        if other is run or any(drift.against == other.case.id for drift in known):
            return
        run.comparison = replace(run.comparison, tensor_drifts=(*known, *_drifts(run, other)))

    def with_emulation(self, run: CaseRun) -> None:
        """Score the float emulation of a Q/DQ file. Raises: HarnessError."""
        artifact = run.prepare().artifact
        if artifact is not None:
            emulation = self._cases.emulation_of(run.case, artifact).accuracy()
            run.comparison = replace(run.comparison, emulation=emulation)

    def with_itself(self, run: CaseRun) -> None:
        """Try whether neighbours, slot and batch size matter; where they do, ask which batch size is right.

        Raises: HarnessError.
        """
        if all(check.is_kept for check in run.invariance()) or run.model.timing_only or run.comparison.sizes:
            return
        try:
            truth = self._truth_of(run)
            if truth is not None:
                sizes = size_checks(run.outputs_by_size(), truth.outputs(), run.case, against=_in_words(truth))
                run.comparison = replace(run.comparison, sizes=sizes)
        except HarnessError:  # the leak is told all the same, and no batch size is advised
            return

    def _truth_of(self, run: CaseRun) -> CaseRun | None:
        """Return what the outputs should be: the emulation, or FP32 of another backend whose batches do not leak."""
        artifact = run.prepare().artifact
        if artifact is not None and artifact.is_qdq:
            return self._cases.emulation_of(run.case, artifact)
        truth = self._cases.fp32_of(run.case, backend=REFERENCE_BACKEND, device=CPU)
        if truth is run or not all(check.is_kept for check in truth.invariance()):
            return None
        return truth


def _drifts(run: CaseRun, other: CaseRun) -> tuple[TensorDrift, ...]:
    """Return how far every output is from another case's on the same samples. Raises: HarnessError."""
    if run.model.tensors is None:
        return ()
    names = run.model.tensors.output_names
    run.samples()
    theirs, ours = (read_outputs(side.outputs_path, names) for side in (other, run))
    return drift_of_outputs(theirs, ours, names, against=other.case.id, rounding=other.samples().rounding)


def _in_words(truth: CaseRun) -> str:
    if truth.case.precision is Precision.FP32:
        return f"FP32 on {truth.case.backend}"
    return f"its file on {truth.case.backend}" if truth.case.is_source else "the float emulation of its file"
