"""One case's engine in a file, with the card that lets another machine take it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.backends import list_backends
from harness.errors import ConfigError, DataError
from harness.models.card_text import card_text, engine_spec, prepared_spec
from harness.options.names import near_names
from harness.options.values import HarnessOptions
from harness.run.case_worker import CaseWorker
from harness.run.plan import plan_run
from harness.run.settings import case_request, quiet_settings
from harness.specs import Precision

CARD = ".toml"
ENDINGS = ".plan, .blob, .ort or .onnx"


def export_case(case_id: str, target: Path, options: HarnessOptions) -> list[str]:
    """Build the engine of a case, write it to a file and its card beside it; return what was written, in lines.

    Raises: HarnessError: ConfigError for a case that the options do not give, Unsupported, BuildError, ...
    """
    card = target.with_suffix(CARD)
    _check_target(target)
    _check_card(card, target)
    plan = plan_run(_narrowed(case_id, options))
    cases = {case.id: case for case in plan.cases}
    if case_id not in cases:
        raise ConfigError(f"{case_id}: no case of these options; {near_names(case_id, tuple(cases))}")
    case, target = cases[case_id], target.absolute()
    model = plan.models[case.model]
    with tempfile.TemporaryDirectory(prefix="harness-export-") as folder:
        request = case_request(case, model, options)
        # An engine of one batch size is that of the smallest one: what is exported is built for no other.
        request = replace(request, score_batch=min(request.timing.batch_sizes))
        worker = CaseWorker(request, name=case.id, settings=quiet_settings(options, Path(folder)))
        try:
            worker.prepare()
            written = worker.export(str(target))
        finally:
            worker.close()
    spec = (
        engine_spec(model, case, sha256=written.sha256, runtime=written.runtime, batch_size=written.batch_size)
        if written.is_engine
        else prepared_spec(model, case, sha256=written.sha256)
    )
    text = card_text(spec, file=target.name, provenance=f"exported from {case.id}")
    try:
        card.write_text(text)
    except OSError as error:
        raise DataError(f"{card}: cannot be written ({error.strerror})") from error
    option = "engine" if written.is_engine else "model"
    kind = "engine" if written.is_engine else f"prepared model ({case.backend} keeps no engine in a file)"
    return [f"wrote {target} ({kind}, sha256 {written.sha256[:12]}) and {card.name}", f"take it by --{option}={target}"]


def _check_target(target: Path) -> None:
    """Refuse what no engine can be written to, before one is built; make the folder. Raises: ConfigError."""
    if target.is_dir():
        raise ConfigError(f"--output={target}: is a folder; give a file in it: {ENDINGS}")
    if not target.suffix:
        raise ConfigError(f"--output={target}: has no ending; give a file: {ENDINGS}")
    if target.suffix == CARD:
        raise ConfigError(f"--output={target}: the card gets this name; give the file another ending")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"--output={target}: {target.parent}: is no folder") from error
    except OSError as error:
        raise ConfigError(f"--output={target}: {target.parent}: cannot be made ({error.strerror})") from error


def _check_card(card: Path, target: Path) -> None:
    """Refuse to overwrite the card of another file. Raises: ConfigError."""
    try:
        is_ours = not card.exists() or f"file = {json.dumps(target.name)}" in card.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{card}: cannot be read ({error}); choose another --output") from error
    if not is_ours:
        raise ConfigError(f"{card}: is the card of another file than {target.name}; choose another --output")


def _narrowed(case_id: str, options: HarnessOptions) -> HarnessOptions:
    """Return options of fewer cases: those of the backends that the id can name, of the precision that it names."""
    backends = tuple(name for name in list_backends() if f"-{name}-" in case_id)
    precisions = tuple(precision for precision in Precision if f"-{precision}" in case_id)
    if options.backends == ("auto",) and backends:
        options = replace(options, backends=backends)
    return replace(options, precisions=precisions) if precisions else options
