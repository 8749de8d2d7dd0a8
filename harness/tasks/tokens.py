"""A sequence of tokens a sample, such as recognized text: exact match, character error rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore
from harness.tasks._metrics import Naming, Ratios, mean_score, whole_score
from harness.tasks._samples import OUTPUT, SampleTask, Setting, Settings, one_output, output_of, target_of

NAME = "tokens"
EXACT = Naming(name="exact match", summary="samples whose tokens are all right")
CER = Naming(
    name="CER",
    summary="edits (insertions, deletions, substitutions) per token of the targets",
    higher_is_better=False,
)
DISTANCE = Naming(
    name="edit distance", summary="edits a sample", higher_is_better=False, is_fraction=False, unit="edits"
)
Tokens = tuple[object, ...]


def edit_distance(found: Sequence[object], target: Sequence[object]) -> int:
    """Return how many insertions, deletions and substitutions lead from one sequence to another.

    Source: V. I. Levenshtein, Soviet Physics Doklady 10 (1966) 707; R. A. Wagner, M. J. Fischer, J. ACM 21 (1974) 168.
    """
    row = list(range(len(target) + 1))
    for i, token in enumerate(found, start=1):
        before, row[0] = row[0], i
        for j, expected in enumerate(target, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (token != expected))
    return row[-1]


def ctc_greedy(path: NDArray[np.int64], *, blank: int) -> tuple[int, ...]:
    """Return the tokens of a best path int64[T]: repeats are one, blanks none.

    Source: A. Graves et al., Connectionist temporal classification, ICML 2006, section 3.2.
    """
    starts = np.concatenate(([True], path[1:] != path[:-1])) if path.size else np.zeros(0, bool)
    return tuple(int(token) for token in path[starts & (path != blank)])


class TokenScores:
    """Scores one sequence of tokens a sample."""

    def __init__(self, settings: Settings) -> None:
        """Begin without samples. Raises: ConfigError for a charset that cannot be read."""
        self._settings = settings
        self._charset = _charset_of(settings)
        self._exact: list[bool] = []
        self._distances: list[int] = []
        self._own: list[float] = []
        self._rates = Ratios()

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample; its target is a text, or the tokens' numbers."""
        target = _tokens_of(target_of(sample, "text", task=NAME), sample, is_text=bool(self._charset))
        found = self._decoded(output_of(outputs, self._settings[OUTPUT], task=NAME), sample)
        if self._settings["ignore_case"]:
            found, target = _lower(found), _lower(target)
        edits = edit_distance(found, target)
        self._exact.append(edits == 0)
        self._distances.append(edits)
        self._own.append(edits / max(len(target), 1))
        self._rates.add({0: (float(edits), float(len(target)))})

    def scores(self) -> tuple[MetricScore, ...]:
        """Return exact match, character error rate, and edits a sample."""
        exact = mean_score(EXACT, np.asarray(self._exact, np.float64))
        return exact, whole_score(CER, self._rates, self._own), mean_score(DISTANCE, self._distances)

    def _decoded(self, output: NDArray[np.generic], sample: Sample) -> Tokens:
        """Return characters where there is a charset, else numbers. Raises: DataError for an output that fits not."""
        is_ids = np.issubdtype(output.dtype, np.integer)
        squeezed = output.reshape([size for size in output.shape if size != 1] or [1]) if is_ids else output
        while not is_ids and squeezed.ndim > 2 and 1 in squeezed.shape:
            squeezed = squeezed.squeeze(squeezed.shape.index(1))
        if squeezed.ndim != (1 if is_ids else 2):
            expected = "[tokens]" if is_ids else "[steps, classes]"
            raise DataError(f"sample {sample.id}: the output has shape {list(output.shape)}; expected {expected}")
        if is_ids:
            path = squeezed.astype(np.int64)
        else:
            path = squeezed.argmax(axis=1 if self._settings["layout"] == "TC" else 0).astype(np.int64)
        if self._settings["decode"] == "ctc":
            return self._named(ctc_greedy(path, blank=int(str(self._settings["blank"]))), sample)
        ends = np.flatnonzero(path == self._settings["end_id"]) if self._settings["end_id"] is not None else path[:0]
        path = path[: ends[0]] if ends.size else path
        skipped = _numbers(self._settings["skip_ids"])
        return self._named(tuple(int(token) for token in path if int(token) not in skipped), sample)

    def _named(self, tokens: tuple[int, ...], sample: Sample) -> Tokens:
        if not self._charset:
            return tokens
        first = int(str(self._settings["first_id"]))
        outside = [token for token in tokens if not first <= token < first + len(self._charset)]
        if outside:
            raise DataError(
                f"sample {sample.id}: token {outside[0]} is not one of the charset's "
                f"{first}..{first + len(self._charset) - 1}; see [task] charset, first_id and blank"
            )
        return tuple(self._charset[token - first] for token in tokens)


def _charset_of(settings: Settings) -> tuple[str, ...]:
    """Return the characters in the order of the output's classes, () where tokens are numbers."""
    charset, file = settings["charset"], settings["charset_file"]
    if charset is not None and file is not None:
        raise ConfigError("[task] charset and charset_file: give one of them")
    if file is not None:
        try:
            charset = Path(str(file)).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[task] charset_file = {str(file)!r} cannot be read: {error}") from error
    return (
        ()
        if charset is None
        else tuple(str(token) for token in (charset if isinstance(charset, list) else str(charset)))
    )


def _tokens_of(target: object, sample: Sample, *, is_text: bool) -> Tokens:
    if isinstance(target, str):
        if not is_text:
            raise DataError(f"sample {sample.id}: the target is a text; give [task] charset or charset_file")
        return tuple(target)
    array = np.asarray(target)
    if array.ndim != 1:
        raise DataError(f"sample {sample.id}: the target has shape {list(array.shape)}; expected a text or a list")
    return tuple(array.tolist())


def _lower(tokens: Tokens) -> Tokens:
    return tuple(token.lower() if isinstance(token, str) else token for token in tokens)


def _numbers(given: object) -> frozenset[int]:
    if not isinstance(given, list) or not all(isinstance(one, int) for one in given):
        raise ConfigError(f"[task] skip_ids = {given!r}: task {NAME} expects whole numbers")
    return frozenset(given)


TASK = SampleTask(
    name=NAME,
    summary="a sequence of tokens a sample: recognized text, or the numbers of tokens",
    make=TokenScores,
    metrics=(EXACT.name, CER.name, DISTANCE.name),
    reads=one_output,
    settings=(
        Setting(
            name="decode",
            summary="how the output reads: ctc (best path without repeats and blanks) or ids (one token a step)",
            default="ctc",
            choices=("ctc", "ids"),
        ),
        Setting(
            name="layout",
            summary="the axes of scores: TC (steps, classes) or CT",
            default="TC",
            choices=("TC", "CT"),
        ),
        Setting(name="charset", summary="the characters, in the order of the classes", kinds=(str, list)),
        Setting(name="charset_file", summary="a file with one of them a line", is_file=True),
        Setting(name="first_id", summary="the class of the first character", kinds=(int,), default=1, low=0),
        Setting(name="blank", summary="the blank class of CTC", kinds=(int,), default=0, low=0),
        Setting(name="end_id", summary="the token that ends a sequence", kinds=(int,), low=0),
        Setting(name="skip_ids", summary="tokens that are left out: padding", kinds=(list,), default=[]),
        Setting(name="ignore_case", summary="whether case counts", kinds=(bool,), default=False),
    ),
)
