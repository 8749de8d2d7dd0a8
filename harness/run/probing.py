"""Which backends can run here: names that were asked, and what probing each in a worker found."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from harness.backends import PROBE_LIMIT_S, list_backends, load_backend
from harness.discovery import add_extension_dir
from harness.errors import BackendUnavailable, ConfigError, WorkerDied
from harness.options.names import near_names
from harness.options.values import HarnessOptions
from harness.protocols import TakesDevices, TakesOptions
from harness.records import Availability
from harness.worker.process import Worker


def choose_backends(options: HarnessOptions, *, probe: bool) -> tuple[list[Availability], dict[str, str]]:
    """Return the usable backends of those asked, and the reason of each that `auto` leaves out.

    `probe=False` trusts that a backend whose modules are installed can run.
    Raises: ConfigError for an unknown name; BackendUnavailable for one asked for by name that cannot run, or for none.
    """
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    names = _chosen_names(options.backends)
    probed = probe_backends(names, options) if probe else [_installed(name) for name in names]
    usable = [a for a in probed if a.usable]
    left_out = {a.backend: one_line(a) for a in probed if not a.usable}
    if options.backends != ("auto",) and left_out:
        raise BackendUnavailable(
            "; ".join(f"--backend={name} cannot run here: {why}" for name, why in left_out.items())
        )
    if not usable:
        raise BackendUnavailable(
            "no backend can run here: " + "; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    _check_backend_options(options)
    return usable, left_out


def probe_backends(names: Sequence[str], options: HarnessOptions) -> list[Availability]:
    """Probe backends in one worker; if one kills it, the rest go on in another."""
    found: list[Availability] = []
    remaining = list(names)
    while remaining:
        reached = [0]

        def note(done: int, total: int, reached: list[int] = reached) -> None:
            reached[0] = done

        worker = Worker(python=options.worker_python, extension_dirs=options.extension_dirs, label="probe")
        try:
            found += worker.call(
                "probe",
                tuple(remaining),
                tuple[Availability, ...],
                timeout_s=PROBE_LIMIT_S,
                limit_option="",
                progress=note,
            )
            remaining = []
        except WorkerDied as error:
            culprit = remaining[reached[0]]
            # Those before the culprit answered inside the lost worker: ask them again, without it.
            found.append(Availability(backend=culprit, usable=False, reason=str(error)))
            remaining.remove(culprit)
        finally:
            worker.close()
    order = {name: index for index, name in enumerate(names)}
    return sorted(found, key=lambda a: order[a.backend])


def takes_device(name: str, device: str) -> bool:
    """Tell whether a backend takes a device that its probe does not list."""
    backend = load_backend(name)
    return isinstance(backend, TakesDevices) and backend.takes_device(device)


def one_line(availability: Availability) -> str:
    """Return why a backend is not usable and what to install."""
    hint = f" ({availability.install_hint})" if availability.install_hint else ""
    return availability.reason + hint


def _chosen_names(asked: tuple[str, ...]) -> tuple[str, ...]:
    known = list_backends()
    if asked == ("auto",):
        return known
    for name in asked:
        if name not in known:
            raise ConfigError(f"--backend={name}: no backend is called that; {near_names(name, known)}")
    return tuple(dict.fromkeys(asked))


def _check_backend_options(options: HarnessOptions) -> None:
    """Refuse an option that its backend would not read. Raises: ConfigError."""
    for name, key, value in options.backend_options:
        where = f"--backend-option={name}.{key}={value}"
        if name not in list_backends():
            raise ConfigError(f"{where}: no backend is called {name}; {near_names(name, list_backends())}")
        backend = load_backend(name)
        if not isinstance(backend, TakesOptions):
            raise ConfigError(f"{where}: {name} takes no options")
        if key not in backend.option_names:
            raise ConfigError(f"{where}: {name} has no option {key}; {near_names(key, backend.option_names)}")


def _installed(name: str) -> Availability:
    backend = load_backend(name)
    missing = [module for module in backend.required_modules if importlib.util.find_spec(module) is None]
    if missing:
        return Availability(
            backend=name, usable=False, reason=f"{missing[0]} is not installed", install_hint=backend.install_hint
        )
    return Availability(backend=name, usable=True, devices=("cpu",))
