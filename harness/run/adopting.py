"""`harness card` and `harness init`: what a project of its own needs, written beside a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.datasets import open_dataset
from harness.errors import ConfigError
from harness.models.card_text import card_text
from harness.models.guesses import guessed_task, likely_states, untold_numbers
from harness.options.file import holds_settings
from harness.options.template import settings_text
from harness.options.values import HarnessOptions
from harness.run.choosing import inspected
from harness.run.folders import bundled_suites
from harness.specs import DatasetRequest, InputsAsked, ModelSpec, ModelTensors

KIT = Path(__file__).parent / "kit"
CI_FILES = {  # system -> (file of the kit, where it belongs)
    "github": ("github.yml", ".github/workflows/harness.yml"),
    "gitlab": ("gitlab.yml", ".gitlab-ci.yml"),
    "jenkins": ("Jenkinsfile", "Jenkinsfile"),
}
IGNORED = "/reports/*\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Files that were written, files that were there before and stayed, and what a person should know."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return one line a file and note."""
        return [
            *(f"wrote {path}" for path in self.written),
            *(f"kept {path}, which was there" for path in self.kept),
            *(f"note: {note}" for note in self.notes),
        ]


def write_card(
    model: Path, *, output: Path | None = None, with_digest: bool = False, inputs: InputsAsked | None = None
) -> Written:
    """Write the card of an ONNX file beside it: what the file says of itself, and what a person has to check.

    `inputs`: what the user says of the inputs of any graph, such as the sizes of free axes.
    Raises: DataError for a file that cannot be taken; ConfigError when the card exists or cannot be written.
    """
    spec, notes = _described(model, inputs)
    card = output or model.with_suffix(".toml")
    if card.exists():
        raise ConfigError(f"{card} exists; remove it, or choose another --output")
    if card.parent.resolve() != model.parent.resolve():
        raise ConfigError(f"{card}: a card lies in the folder of its file, {model.parent}")
    return Written(written=(_put(card, _card(spec, model, with_digest=with_digest)),), notes=tuple(notes))


def init_project(
    model: Path, *, folder: Path, ci: tuple[str, ...] = ("github",), inputs: InputsAsked | None = None
) -> Written:
    """Write suites, settings, the model's card, a folder for baselines and CI files; nothing that exists is changed.

    `inputs` as `write_card`.
    Raises: DataError for a file that cannot be taken; ConfigError when something cannot be written, the folder holds
    settings in pyproject.toml, or a CI system is unknown.
    """
    for system in ci:
        if system not in CI_FILES:
            raise ConfigError(f"--ci={system}: choose from {', '.join(CI_FILES)}, or none")
    if holds_settings(folder) and not (folder / "harness.toml").exists():
        raise ConfigError(
            f"{folder / 'pyproject.toml'} has [tool.harness]; settings stand in one file: move them to harness.toml"
        )
    model = model.resolve()
    if not model.is_relative_to(folder.resolve()):
        raise ConfigError(f"{model} does not lie below {folder.resolve()}; copy it there, CI needs it too")
    spec, notes = _described(model, inputs)
    place = model.relative_to(folder.resolve()).as_posix()
    chosen: dict[str, object] = {"model": f"./{place}"}
    if not spec.timing_only:
        chosen["dataset"] = DatasetRequest().name
    texts = {
        folder / "harness.toml": settings_text(chosen),
        model.with_suffix(".toml"): _card(spec, model, with_digest=False),
        folder / "suites" / "baselines" / "README.md": BASELINES_NOTE,
        folder / ".gitignore": IGNORED,
        **{folder / "suites" / path.name: path.read_text() for path in sorted(bundled_suites().glob("test_*.py"))},
        **{folder / place: (KIT / name).read_text() for name, place in (CI_FILES[system] for system in ci)},
    }
    kept = tuple(path for path in texts if path.exists())
    written = tuple(_put(path, text) for path, text in texts.items() if path not in kept)
    return Written(written=written, kept=kept, notes=tuple(notes))


BASELINES_NOTE = """\
Accepted results, one file a case: `harness baseline accept latest` writes them, `harness baseline show` lists them.
Keep them in git, or as an artifact of the night.
"""


def _described(model: Path, inputs: InputsAsked | None) -> tuple[ModelSpec, list[str]]:
    spec = inspected(model.resolve(), HarnessOptions(), inputs=inputs, is_scored=True)
    if spec.tensors is not None:
        why = spec.unscored or "its inputs are given"
        return spec, [
            f"taken as a model of any graph ({why})",
            "its outputs are compared, not scored, until the card names a task and harness.toml a dataset",
            *_hints(spec.tensors),
        ]
    softmax = "a Softmax makes it" if spec.output_kind == "probabilities" else "no Softmax makes it"
    notes = [
        f"task classification: {spec.num_classes} classes; the output counts as {spec.output_kind}, since {softmax}",
        "scale, mean and std are not in the file: the card says pixels/255; correct it if it was trained otherwise",
    ]
    if not _fits_drawn_digits(spec):
        spec = replace(spec, timing_only=True)
        notes.append(
            "no bundled data set has such images: the card says timing_only; once `dataset` in harness.toml names "
            "yours, remove that line"
        )
    return spec, notes


def _hints(tensors: ModelTensors) -> list[str]:
    """Return what the file does not tell and a person may know."""
    hints = []
    if names := untold_numbers(tensors):
        hints.append(
            f"whole numbers of {', '.join(names)} are seeded from 0 to 1: the file does not tell what they may be; "
            f"correct input_range, as {names[0]}:0..255"
        )
    for one, output in likely_states(tensors):
        hints.append(f'output {output} has the shape of input {one}: if it is fed back, add state = ["{one}={output}"]')
    if guess := guessed_task(tensors):
        hints.append(f"perhaps task {guess.task}, as {guess.why}: the card has it as a comment")
    return hints


def _fits_drawn_digits(spec: ModelSpec) -> bool:
    digits = open_dataset(DatasetRequest().name, split=DatasetRequest().split)
    n_pixels = 1
    for size in spec.input_shape:
        n_pixels *= size
    same = n_pixels == digits.image_shape[-1] * digits.image_shape[-2]
    return same and spec.num_classes == digits.num_classes


def _card(spec: ModelSpec, model: Path, *, with_digest: bool) -> str:
    spec = spec if with_digest else replace(spec, sha256="")
    return card_text(spec, file=model.name, provenance="")


def _put(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    return path
