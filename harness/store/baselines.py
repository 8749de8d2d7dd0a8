"""Baseline files: what a case gave when somebody accepted it, kept in version control.

    <root>/predictions/<data set>-<split>/<device class>/<case id>.json    what every image was taken for
    <root>/samples/<data set and split>/<device class>/<case id>.json      metrics of samples of named tensors
    <root>/times/<device type>/<case id>.json                              times, and the precision that ran

Predictions serve more machines than times do: in FP32 and FP16 every CPU, in INT8 and BF16 every CPU of one instruction
set and weight width, of a GPU every one of its name. Files are small and in a fixed key order, so that a changed
baseline is a readable diff. A damaged file is an error with the command that replaces it, never a missing baseline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import BaselineError, ConfigError
from harness.gates import Subject, baseline_gates
from harness.records import CPU, Record, RecordKey, Status, Verdict, percent
from harness.specs import Precision
from harness.store.baseline_files import (
    PREDICTIONS,
    SAMPLES,
    TIMES,
    Baseline,
    TimesBaseline,
    json_from_baseline,
    line_from_baseline,
    predictions_from_json,
    predictions_from_record,
    samples_from_json,
    samples_from_record,
    subject_from_files,
    text_from_baseline,
    times_from_json,
    times_from_record,
    with_history,
)
from harness.store.ratchet import beyond_budget
from harness.store.runs import write_atomically

PORTABLE = (Precision.FP32, Precision.FP16)  # predicted alike by all CPUs


def slug(text: str) -> str:
    """Return a name as a folder's name: `NVIDIA H200` becomes `nvidia-h200`."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.")


def device_class(record: Record) -> str:
    """Return the devices whose predictions are the same, as a folder's name.

    Raises: BaselineError for a GPU whose model name is unknown.
    """
    environment = record.environment
    if record.case.device != CPU:
        name = slug(environment.device_name)
        if not name:
            raise BaselineError(
                f"{record.case.id}: the name of device {record.case.device} is unknown, so it can have no baseline"
            )
        return name
    if record.case.precision in PORTABLE:
        return CPU
    bits = record.artifact.weight_bits if record.artifact else 0
    return slug(f"{CPU}-{environment.cpu_isa}-w{bits}")


def _file_name(record: Record) -> str:
    """Return the name of a case's file. Raises: BaselineError for an id that would lead elsewhere."""
    name = f"{record.case.id}.json"
    if Path(name).name != name or "\0" in name or "\\" in name:
        raise BaselineError(f"case {record.case.id!r} has no file name for its id; its record was not written by a run")
    return name


class BaselineStore:
    """The baseline files below one folder, and those queued to be written at the end of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._queued: dict[Path, Baseline] = {}

    def predictions_path(self, record: Record) -> Path | None:
        """Return where a case's predictions lie, whether or not they exist; None for a case without scores."""
        if record.accuracy is None:
            return None
        images = record.accuracy.images
        folder = slug(f"{images.dataset}-{images.split}")
        return self.root / PREDICTIONS / folder / device_class(record) / _file_name(record)

    def samples_path(self, record: Record) -> Path | None:
        """Return where a case's metrics lie, whether or not they exist; None for a case without any."""
        if record.samples is None or record.samples.leading is None:
            return None
        return self.root / SAMPLES / slug(record.samples.source) / device_class(record) / _file_name(record)

    def times_path(self, record: Record) -> Path:
        """Return where a case's times lie, whether or not they exist."""
        if record.case.device != CPU:
            device_class(record)  # refuses a GPU without a name
        return self.root / TIMES / slug(record.environment.device_type) / _file_name(record)

    def load(self, record: Record) -> Subject | None:
        """Return what a record's case is compared with, None when nothing of it is stored.

        Raises: BaselineError for a damaged file or another schema.
        """
        parts = [_read_part(self.root, path, record.case.id) for path in self.paths_of(record) if path.is_file()]
        return subject_from_files(parts) if parts else None

    def load_for(self, records: Iterable[Record]) -> tuple[dict[RecordKey, Subject], dict[RecordKey, BaselineError]]:
        """Return the baselines of many records by their keys, and the errors of those that cannot be read."""
        found: dict[RecordKey, Subject] = {}
        errors: dict[RecordKey, BaselineError] = {}
        for record in records:
            if record.is_reference:
                continue
            try:
                subject = self.load(record)
            except BaselineError as error:
                errors[record.key] = error
                continue
            if subject is not None:
                found[record.key] = subject
        return found, errors

    def copy_to(self, root: Path, records: Iterable[Record]) -> None:
        """Copy the baselines of some records below another folder: what a run was compared with stays with the run."""
        for record in records:
            for path in self.paths_of(record):
                if path.is_file():
                    write_file(root / path.relative_to(self.root), path.read_bytes())

    def queue(self, record: Record, *, accepted_by: str, accepted_at: str) -> None:
        """Keep a record to be written by `flush`.

        Raises: BaselineError for one that neither passed nor failed against its baseline alone, or whose accepted
        changes add up beyond its budget.
        """
        if record.status is not Status.PASSED and not failed_against_baseline(record):
            raise BaselineError(f"{record.case.id} {record.status}: only a passed case becomes a baseline")
        if has_waived(record):
            raise BaselineError(f"{record.case.id} passed by a waiver: only an unwaived case becomes a baseline")
        files = self._files_of(record, accepted_by=accepted_by, accepted_at=accepted_at)
        check_budget(record, files.values())
        self._queued.update(files)

    def flush(self, *, is_clean: bool) -> tuple[Path, ...]:
        """Write what was queued if the run was clean, and return the paths; otherwise write nothing.

        Raises: ConfigError when the folder cannot be written.
        """
        queued, self._queued = self._queued, {}
        if not is_clean:
            return ()
        for path, baseline in queued.items():
            write_file(path, json_from_baseline(baseline))
        return tuple(queued)

    def accept(
        self,
        records: Sequence[Record],
        *,
        case_ids: Sequence[str] = (),
        accepted_by: str,
        accepted_at: str,
        reason: str = "",
        new_budget: bool = False,
    ) -> tuple[Path, ...]:
        """Write baselines from a stored run on purpose: all its cases, or those named; return the paths.

        A case that failed only against its old baseline is accepted by name; one that failed otherwise is refused, and
        one beyond its budget without a `new_budget`; then nothing is written.
        Raises: BaselineError for a refused case; ConfigError for a case the run does not have.
        """
        chosen = _chosen(records, case_ids)
        files: dict[Path, Baseline] = {}
        for record in chosen:
            _check_acceptable(record, is_named=record.case.id in case_ids)
            made = self._files_of(
                record, accepted_by=accepted_by, accepted_at=accepted_at, reason=reason, new_budget=new_budget
            )
            check_budget(record, made.values())
            files.update(made)
        for path, baseline in files.items():
            write_file(path, json_from_baseline(baseline))
        return tuple(files)

    def paths(self) -> tuple[Path, ...]:
        """Return all baseline files, sorted."""
        scored = (path for kind in (PREDICTIONS, SAMPLES) for path in (self.root / kind).glob("*/*/*.json"))
        found = (*scored, *(self.root / TIMES).glob("*/*.json"))
        return tuple(sorted(found))

    def load_all(self) -> tuple[Baseline, ...]:
        """Return all baselines. Raises: BaselineError for the first damaged file."""
        return tuple(self.read(path) for path in self.paths())

    def read(self, path: Path) -> Baseline:
        """Return the baseline in one of the files. Raises: BaselineError for a damaged one."""
        return _read_part(self.root, path, path.stem)

    def paths_of(self, record: Record) -> tuple[Path, ...]:
        """Return where the parts of a record's baseline lie, whether or not they exist."""
        return tuple(filter(None, (self.predictions_path(record), self.samples_path(record), self.times_path(record))))

    def _files_of(
        self, record: Record, *, accepted_by: str, accepted_at: str, reason: str = "", new_budget: bool = False
    ) -> dict[Path, Baseline]:
        _check_measured(record)
        files: dict[Path, Baseline] = {}
        path = self.predictions_path(record)
        if path is not None:
            files[path] = predictions_from_record(record, accepted_by=accepted_by, accepted_at=accepted_at)
        if (path := self.samples_path(record)) is not None:
            files[path] = samples_from_record(record, accepted_by=accepted_by, accepted_at=accepted_at)
        if record.valid_latencies:
            path = self.times_path(record)
            old = _times_before(path)
            files[path] = times_from_record(record, accepted_by=accepted_by, accepted_at=accepted_at, before=old)
        return {
            path: with_history(baseline, _stored_at(self, path), reason=reason, starts_budget=new_budget)
            for path, baseline in files.items()
        }


def _check_measured(record: Record) -> None:
    if record.artifact is None or not _has_scores_or_times(record):
        raise BaselineError(
            f"{record.case.id}: nothing was measured ({record.status}); a baseline needs scores or times"
        )


def _chosen(records: Sequence[Record], case_ids: Sequence[str]) -> list[Record]:
    """Return the records to accept: those named, or all that were measured. Raises: BaselineError, ConfigError."""
    by_id: dict[str, list[Record]] = {}  # of a merged run several: one a type of device
    for record in records:
        if not record.is_reference:
            by_id.setdefault(record.case.id, []).append(record)
    unknown = [case_id for case_id in case_ids if case_id not in by_id]
    if unknown:
        raise ConfigError(f"the run has no case {', '.join(unknown)}; it has: {', '.join(by_id) or 'none'}")
    named = [record for case_id in case_ids for record in by_id[case_id]]
    chosen = named or [record for found in by_id.values() for record in found if is_measured(record)]
    if not chosen:
        raise BaselineError("the run measured no case, so there is nothing to accept")
    return chosen


def _stored_at(store: BaselineStore, path: Path) -> Baseline | None:
    """Return the baseline that is there; a damaged one has no history left."""
    try:
        return store.read(path) if path.is_file() else None
    except BaselineError:
        return None


def _times_before(path: Path) -> TimesBaseline | None:
    """Return the times that are about to be replaced; None where there are none, or none that can be read."""
    try:
        data = _read(path)
        return None if data is None else times_from_json(data, where=str(path), case_id=path.stem)
    except BaselineError:  # damaged: replacing it is the remedy
        return None


class KeptBaselines(Mapping[RecordKey, Subject]):
    """The baselines below a folder, each read when it is asked for: those of a fleet fill no memory."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._store = BaselineStore(folder)
        self._records = {record.key: record for record in records if not record.is_reference}
        self.errors: dict[RecordKey, BaselineError] = {}  # of those that were asked for and cannot be read

    def __getitem__(self, key: RecordKey) -> Subject:
        try:
            found = self._store.load(self._records[key])
        except BaselineError as error:
            self.errors[key] = error
            found = None
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[RecordKey]:
        return (key for key in self._records if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_measured(record: Record) -> bool:
    """Tell whether a record has something to accept or to compare."""
    has_ended = record.status in (Status.PASSED, Status.FAILED)
    return has_ended and _has_scores_or_times(record)


def _has_scores_or_times(record: Record) -> bool:
    has_metric = record.samples is not None and record.samples.leading is not None
    return record.accuracy is not None or has_metric or bool(record.valid_latencies)


def write_file(path: Path, data: bytes) -> None:
    """Write a baseline's file. Raises: ConfigError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"baseline {path} cannot be written ({error.strerror}); see --baseline-dir") from error


def _read_part(root: Path, path: Path, case_id: str) -> Baseline:
    readers: dict[str, Callable[..., Baseline]] = {
        PREDICTIONS: predictions_from_json,
        SAMPLES: samples_from_json,
        TIMES: times_from_json,
    }
    return readers[path.relative_to(root).parts[0]](_read(path), where=str(path), case_id=case_id)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BaselineError(f"{path} cannot be read ({error.strerror}); fix its permissions") from error


def baseline_lines(store: BaselineStore, case_id: str | None = None) -> list[str]:
    """Return all baselines, a line each; or those of one case in full. Raises: BaselineError for none."""
    found = [baseline for baseline in store.load_all() if case_id in (None, baseline.case.id)]
    if not found:
        of_case = f" of {case_id}" if case_id else ""
        raise BaselineError(f"{store.root} holds no baseline{of_case}; see harness baseline accept")
    return [text_from_baseline(baseline) if case_id else line_from_baseline(baseline) for baseline in found]


def replaced_lines(records: Sequence[Record], written: Sequence[Path]) -> list[str]:
    """Return "CASE: top-1 99.15 -> 98.88 % (44 lost, 17 gained)" of every baseline that was replaced by another."""
    names, against_stored = {path.stem for path in written}, baseline_gates()
    return [
        f"{record.case.id}: {_replaced(record, verdict)}"
        for record in records
        if record.case.id in names
        for verdict in record.verdicts
        if verdict.gate in against_stored
        and (verdict.n_lost is not None or verdict.metric)
        and verdict.value is not None
        and verdict.baseline_value is not None
        and verdict.code != "identical"
    ]


def _replaced(record: Record, verdict: Verdict) -> str:
    before, now = verdict.baseline_value or 0.0, verdict.value or 0.0
    leading = record.samples.leading if record.samples and verdict.metric else None
    if leading is not None:
        return f"{verdict.metric} {leading.in_words(before)} -> {leading.in_words(now)}"
    return f"top-1 {percent(before)} -> {percent(now)} ({verdict.n_lost} lost, {verdict.n_gained} gained)"


def check_budget(record: Record, baselines: Iterable[Baseline]) -> None:
    """Refuse a record whose accepted changes add up beyond its budget. Raises: BaselineError."""
    problem = next(filter(None, (beyond_budget(record, baseline.history) for baseline in baselines)), "")
    if problem:
        case_id = record.case.id
        raise BaselineError(
            f"{case_id}: {problem}; find what was lost, or begin anew: "
            f"harness baseline accept RUN --case {case_id} --new-budget --reason TEXT"
        )


def has_waived(record: Record) -> bool:
    """Tell whether a record failed where a waiver takes it."""
    return any(verdict.waived for verdict in record.verdicts)


def failed_against_baseline(record: Record) -> bool:
    """Tell whether a record failed, and by nothing but the gates that read a baseline."""
    failing = {verdict.gate for verdict in record.verdicts if verdict.is_failure}
    return record.status is Status.FAILED and not record.error and bool(failing) and failing <= baseline_gates()


def _check_acceptable(record: Record, *, is_named: bool) -> None:
    if not is_measured(record):
        raise BaselineError(f"{record.case.id} ended in {record.status} ({record.reason}); there is nothing to accept")
    against_stored = baseline_gates()
    others = [v for v in record.verdicts if (v.is_failure or v.waived) and v.gate not in against_stored]
    if others:
        raise BaselineError(
            f"{record.case.id} failed gate {others[0].gate} ({others[0].message}); a baseline cannot excuse that, "
            "change the tolerance or fix the case"
        )
    worse = next((v for v in record.verdicts if v.is_failure or v.waived), None)
    if worse is not None and not is_named:
        raise BaselineError(
            f"{record.case.id} failed gate {worse.gate} ({worse.message}); to accept that, name it: "
            f"--case {record.case.id}"
        )
    if record.status is Status.FAILED and not any(v.is_failure for v in record.verdicts):
        raise BaselineError(f"{record.case.id} failed ({record.reason}), not against its baseline; fix it first")
