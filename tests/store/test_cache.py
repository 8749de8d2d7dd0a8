"""The content cache: a hit is exactly what was stored; anything else is said."""

import json
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.store.cache import ContentCache, key_digest

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
