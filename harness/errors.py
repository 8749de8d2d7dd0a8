"""The exception tree; every error a caller may meet derives from HarnessError.

A regression is not an exception but a `records.Verdict`: "the model got worse" and "the harness broke" never mix.
A message says what was attempted, what was found, what was expected, and what to do next.
"""


class HarnessError(Exception):
    """Anything this harness raises on purpose."""


class ConfigError(HarnessError):
    """The request is wrong: an unknown name, a contradiction, a file that is not what it claims to be."""


class DataError(ConfigError):
    """A data set or model file cannot be used as it is: missing, damaged, too small, wrong labels."""


class BackendUnavailable(HarnessError):
    """A library or device is absent: an error if it was asked for by name, otherwise a line in the header."""


class Unsupported(HarnessError):
    """The device cannot do this case at all: a skip that states the reason."""


class BuildError(HarnessError):
    """A model conversion or an engine build failed."""


class MeasurementError(HarnessError):
    """Scoring or timing gave no usable number: NaN, zero time, too few samples."""


class WorkerDied(HarnessError):
    """The process that held the engine was killed, crashed or hung."""


class BaselineError(HarnessError):
    """A stored baseline is damaged or of a newer schema; the message names the command that fixes it."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something; its type where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
