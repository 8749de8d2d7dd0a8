"""One reader of files, as tests/fuzz_readers.py lists them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """How a file is read, and a sound one."""

    sound: bytes
    read: object  # (path) -> anything; raises HarnessError
    name: str  # of the file
    beside: dict  # other files of the folder
    is_json: bool = False
