"""Which backends can run here: names that were asked, and what probing each in a worker found."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import closing

from harness.backends import ROOM, list_backends, load_backend
from harness.errors import BackendUnavailable, ConfigError, HarnessError
from harness.options.discovery import add_extension_dir
from harness.options.names import near_names
from harness.options.values import HarnessOptions
from harness.protocols import TakesDevices
from harness.records import Availability
from harness.worker.probing import needs_of
from harness.worker.process import Worker
from harness.worker.requests import BackendNeeds


def choose_backends(options: HarnessOptions, *, probe: bool) -> tuple[list[Availability], list[Availability]]:
    """Return the usable backends of those asked, and those that `auto` leaves out.

    `probe=False` trusts that a backend whose modules are installed can run.
    Raises: ConfigError for an unknown name; BackendUnavailable for one asked for by name that cannot run, or for none.
    """
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    names = chosen_names(options.backends)
    probed = probe_backends(names, options) if probe else _installed(names, options)
    usable = [a for a in probed if a.usable]
    unusable = [a for a in probed if not a.usable]
    left_out = {a.backend: one_line(a) for a in unusable}
    if options.backends != ("auto",) and left_out:
        raise BackendUnavailable(
            "; ".join(f"--backend={name} cannot run here: {why}" for name, why in left_out.items())
        )
    if not usable:
        raise BackendUnavailable(
            "no backend can run here: " + "; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    _check_backend_options(options)
    return usable, unusable


def probe_backends(names: Sequence[str], options: HarnessOptions) -> list[Availability]:
    """Probe backends in workers: ours together, each of a user's own in one of its own.

    Whatever happens to one, the others have their answer.
    """
    own = [name for name in names if ROOM.is_own(name)]
    found = _probed(own, options)
    for name in names:
        if name not in own:
            found += _probed([name], options)
    order = {name: index for index, name in enumerate(names)}
    return sorted(found, key=lambda a: order[a.backend])


def _probed(names: Sequence[str], options: HarnessOptions) -> list[Availability]:
    """Probe some backends in one worker; if one kills it, the rest go on in another."""
    found: list[Availability] = []
    remaining = list(names)
    while remaining:
        reached = [0]

        def note(done: int, total: int, reached: list[int] = reached) -> None:
            reached[0] = done

        with closing(_worker(options)) as worker:
            try:
                found += worker.call("probe", tuple(remaining), tuple[Availability, ...], progress=note)
                remaining = []
            except HarnessError as error:
                culprit = remaining[reached[0]]
                # Those before the culprit answered inside the lost worker: ask them again, without it.
                found.append(Availability(backend=culprit, usable=False, reason=str(error)))
                remaining.remove(culprit)
    return found


def _worker(options: HarnessOptions) -> Worker:
    return Worker(
        python=options.worker_python, extension_dirs=options.extension_dirs, label="probe", limits=options.limits
    )


def takes_device(name: str, device: str) -> bool:
    """Tell whether a backend takes a device that its probe does not list; a user's file is not imported to ask it."""
    backend = load_backend(name) if ROOM.is_own(name) else None
    return isinstance(backend, TakesDevices) and backend.takes_device(device)


def one_line(availability: Availability) -> str:
    """Return why a backend is not usable and what to install."""
    hint = f" ({availability.install_hint})" if availability.install_hint else ""
    return availability.reason + hint


def chosen_names(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the backends that were asked. Raises: ConfigError for an unknown one."""
    known = list_backends()
    if asked == ("auto",):
        return known
    for name in asked:
        if name not in known:
            raise ConfigError(f"--backend={name}: unknown backend; {near_names(name, known)}")
    return tuple(dict.fromkeys(asked))


def _check_backend_options(options: HarnessOptions) -> None:
    """Refuse an option that its backend would not read. Raises: ConfigError."""
    if not options.backend_options:
        return
    known = list_backends()
    needs = needs_of_backends(tuple({name for name, _, _ in options.backend_options if name in known}), options)
    for name, key, value in options.backend_options:
        where = f"--backend-option={name}.{key}={value}"
        if name not in known:
            raise ConfigError(f"{where}: no backend is called {name}; {near_names(name, known)}")
        option_names = needs[name].option_names
        if option_names is None:
            raise ConfigError(f"{where}: {name} takes no options")
        if key not in option_names:
            raise ConfigError(f"{where}: {name} has no option {key}; {near_names(key, option_names)}")


def _installed(names: Sequence[str], options: HarnessOptions) -> list[Availability]:
    """Trust that a backend whose modules are installed can run."""
    found = []
    for name, needs in needs_of_backends(names, options).items():
        missing = [module for module in needs.required_modules if importlib.util.find_spec(module) is None]
        reason = needs.error or (f"{missing[0]} is not installed" if missing else "")
        hint = needs.install_hint if missing else ""
        devices = () if reason else ("cpu",)
        found.append(Availability(backend=name, usable=not reason, reason=reason, install_hint=hint, devices=devices))
    return found


def needs_of_backends(names: Sequence[str], options: HarnessOptions) -> dict[str, BackendNeeds]:
    """Return what backends say of themselves; the file of a user's own is imported in a worker only."""
    found = {name: needs_of(name) for name in names if ROOM.is_own(name)}
    for name in names:
        if name not in found:
            with closing(_worker(options)) as worker:
                try:
                    (found[name],) = worker.call("describe", (name,), tuple[BackendNeeds, ...])
                except HarnessError as error:
                    found[name] = BackendNeeds(name=name, error=str(error))
    return {name: found[name] for name in names}
