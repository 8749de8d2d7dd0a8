"""A device is timed by one run at a time; where no lock can be made nobody waits."""

import threading

import pytest

from harness.machine.turns import device_of, turn_on


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_second_waits_until_the_first_is_done_and_says_that_it_waits():
    order, waited, holds = [], threading.Event(), threading.Event()

    def second():
        holds.wait()
        with turn_on("cuda:0", waiting=waited.set):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with turn_on("cuda:0"):
        holds.set()
        assert waited.wait(10)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_devices_do_not_wait_for_each_other():
    def fail():
        raise AssertionError("waited")

    with turn_on("cuda:0"), turn_on("cuda:1", waiting=fail), turn_on("cpu", waiting=fail):
        pass


def test_a_device_is_free_again_after_an_error():
    with pytest.raises(ValueError, match="broke"), turn_on("cpu"):
        raise ValueError("broke")
    with turn_on("cpu"):
        pass


def test_where_no_lock_can_be_made_nobody_waits(cache):
    (cache / "nn-engine-harness").write_text("a file")
    with turn_on("cpu"):
        pass


@pytest.mark.parametrize(
    ("visible", "device", "name"),
    [
        ("", "cuda:0", "cuda:0"),
        ("2,GPU-ab", "cuda:0", "cuda:2"),
        ("2,GPU-ab", "cuda:1", "cuda:GPU-ab"),
        ("2", "cpu", "cpu"),
    ],
)
def test_a_gpu_has_one_name_whatever_a_process_sees(monkeypatch, visible, device, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_of(device) == name
