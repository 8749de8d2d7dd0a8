"""The content cache: a hit is exactly what was stored; anything else is said."""

import errno
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.store.cache import ContentCache, key_digest, make_own_folder
from harness.store.sealed import sealed

KEY = {"model": "ab", "options": {"tf32": False, "level": 3}}


def only_folder(root):
    (folder,) = (root / "plans").iterdir()
    return folder


def test_a_stored_payload_comes_back(tmp_path):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="engine.plan", meta={"build_ns": "5"})
    found = cache.lookup(dict(reversed(KEY.items())))
    assert found.state == "hit"
    assert Path(found.entry.path).read_bytes() == b"plan"
    assert found.entry.meta == {"build_ns": "5"}


@pytest.mark.parametrize(
    "other", [{"model": "ac"}, {"options": {"tf32": True, "level": 3}}, {"options": {"tf32": False}}, {"more": 1}]
)
def test_any_change_of_the_key_is_a_miss(tmp_path, other):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="p", meta={})
    assert cache.lookup({**KEY, **other}).state == "miss"


def test_an_entry_is_dropped_and_others_stay(tmp_path):
    cache, other = ContentCache(tmp_path, "plans"), {"model": "other"}
    for key in (KEY, other):
        cache.put(key, b"plan", name="p", meta={})
    cache.drop(KEY)
    cache.drop(KEY)  # there is none any more
    assert (cache.lookup(KEY).state, cache.lookup(other).state) == ("miss", "hit")


def test_a_file_is_moved_in(tmp_path):
    source = tmp_path / "made.onnx"
    source.write_bytes(b"model")
    entry = ContentCache(tmp_path, "plans").put(KEY, source, name="model.onnx", meta={})
    assert Path(entry.path).read_bytes() == b"model"
    assert not source.exists()


def flip(folder):
    (folder / "p").write_bytes(b"plan!")


def truncate(folder):
    (folder / "entry.json").write_bytes((folder / "entry.json").read_bytes()[:20])


def remove(folder):
    (folder / "p").unlink()


def foreign(folder):
    note = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**note, "maker": "another program"}))


def other_key(folder):
    note = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**note, "key": {"model": "zz"}}))


@pytest.mark.parametrize("damage", [flip, truncate, remove, foreign, other_key])
def test_damage_is_found_said_and_cleared(tmp_path, damage):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="p", meta={})
    damage(only_folder(tmp_path))
    found = cache.lookup(KEY)
    assert found.state == "damaged"
    assert found.reason
    assert cache.lookup(KEY).state == "miss"
    cache.put(KEY, b"again", name="p", meta={})
    assert cache.lookup(KEY).state == "hit"


def test_storing_twice_keeps_the_newer(tmp_path):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"one", name="p", meta={})
    cache.put(KEY, b"two", name="p", meta={})
    assert Path(cache.lookup(KEY).entry.path).read_bytes() == b"two"
    assert len(list((tmp_path / "plans").iterdir())) == 1


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--engine-cache"):
        ContentCache(tmp_path / "file", "plans").put(KEY, b"x", name="p", meta={})


def test_the_digest_is_stable():
    assert key_digest({"b": 1, "a": [1, 2]}) == key_digest({"a": [1, 2], "b": 1})
    assert key_digest({"a": 1}) != key_digest({"a": "1"})


def link_payload(folder):
    (folder / "p").rename(folder.parent / "elsewhere")
    (folder / "p").symlink_to(folder.parent / "elsewhere")


def link_folder(folder):
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def resealed(folder, **changes):
    note = json.loads((folder / "entry.json").read_text())
    del note["digest"]
    (folder / "entry.json").write_bytes(sealed(json.dumps({**note, **changes}).encode()))


def leave(folder):
    (folder.parent.parent / "p").write_bytes(b"plan")
    resealed(folder, path="../../p")


def open_payload(folder):
    (folder / "p").chmod(0o666)


def open_folder(folder):
    folder.chmod(0o777)


def give_away(folder):
    os.chown(folder / "p", 12345, 12345)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (link_payload, "p is a link"),
        (link_folder, "is a link"),
        (leave, r"'../../p' lies outside its folder"),
        (open_payload, "others may write p"),
        (open_folder, "others may write"),
        pytest.param(
            give_away,
            "p belongs to another user",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
        (lambda folder: resealed(folder, meta={}), "lacks note"),
        (lambda folder: resealed(folder, schema=99), "schema 99"),
    ],
)
def test_what_others_may_have_written_is_never_used(tmp_path, harm, words):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="p", meta={"note": "x"})
    harm(only_folder(tmp_path))
    found = cache.lookup(KEY, needs=("note",))
    assert (found.state, found.entry) == ("damaged", None)
    assert re.search(words, found.reason)
    assert cache.lookup(KEY).state == "miss"


def test_a_note_with_any_byte_changed_is_no_hit(tmp_path):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="p", meta={"build_ns": "5"})
    folder = only_folder(tmp_path)
    whole = (folder / "entry.json").read_bytes()
    for at in range(len(whole)):
        shutil.copytree(folder, tmp_path / "kept")
        changed = bytes([whole[at] ^ 1])
        (folder / "entry.json").write_bytes(whole[:at] + changed + whole[at + 1 :])
        found = cache.lookup(KEY)
        is_space = json.loads(whole) == _json_or_none(folder / "entry.json") if found.entry else False
        assert found.state == "damaged" or is_space, whole[max(0, at - 9) : at + 9]
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / "kept").rename(folder)


def _json_or_none(path):
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def test_what_the_cache_makes_is_its_owners_alone(tmp_path):
    entry = ContentCache(tmp_path / "cache", "plans").put(KEY, b"plan", name="p", meta={})
    payload = Path(entry.path)
    for place in (payload, payload.with_name("entry.json"), payload.parent):
        assert place.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_may_write_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans").chmod(0o777)
    with pytest.raises(ConfigError, match="others may write plans; choose another with --engine-cache"):
        ContentCache(tmp_path, "plans").put(KEY, b"x", name="p", meta={})


def test_two_that_want_an_entry_at_once_build_it_once(tmp_path):
    built = []

    def want(_):
        cache = ContentCache(tmp_path, "plans")
        with cache.building(KEY):
            found = cache.lookup(KEY).entry
            if found is None:
                time.sleep(0.05)
                built.append(1)
                found = cache.put(KEY, b"plan", name="p", meta={})
        return Path(found.path).read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(want, range(8))) == [b"plan"] * 8
    assert len(built) == 1


def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, monkeypatch):
    cache = ContentCache(tmp_path, "plans")
    cache.put(KEY, b"plan", name="p", meta={})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.store.cache.FileLock", refuse)
    monkeypatch.setattr("harness.store.cache.tempfile.mkdtemp", refuse)
    with cache.building(KEY):
        assert cache.lookup(KEY).state == "hit"
    with pytest.raises(ConfigError, match=r"cannot be written .*--engine-cache"):
        cache.put({"other": 1}, b"x", name="p", meta={})


@pytest.mark.parametrize("at", ["payload", "note"])
def test_a_disk_that_fills_while_an_entry_is_written_leaves_nothing_of_it(tmp_path, monkeypatch, at):
    cache = ContentCache(tmp_path, "plans")
    write = Path.write_bytes

    def full(path, data):
        if (path.name == "entry.json") == (at == "note"):
            write(path, data[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        cache.put(KEY, b"plan", name="p", meta={})
    assert [path.name for path in (tmp_path / "plans").iterdir()] == []
    assert cache.lookup(KEY).state == "miss"


@pytest.mark.parametrize("harm", ["open", "link"])
def test_a_folder_whose_files_a_runtime_loads_itself_is_its_owners_alone(tmp_path, harm):
    make_own_folder(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0
    make_own_folder(tmp_path / "own")
    if harm == "open":
        (tmp_path / "own").chmod(0o777)
    else:
        (tmp_path / "own").rename(tmp_path / "elsewhere")
        (tmp_path / "own").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"others may write own|own is a link"):
        make_own_folder(tmp_path / "own")
