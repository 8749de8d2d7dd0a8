"""Waivers of harness.toml: every key is needed, and a bad entry stops the run before it begins."""

import pytest

from harness.errors import ConfigError
from harness.options.tolerances import load_tolerances
from harness.options.waivers import load_waivers
from harness.specs import Waiver

GATES = ("fp32", "latency")
GOOD = {
    "case": '"lenet5-*-int8"',
    "gate": '"fp32"',
    "reason": '"a new kernel"',
    "link": '"https://tracker/12"',
    "expires": "2026-12-31",
}


def entry(**changes):
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return "\n".join(["[[waiver]]", *(f"{key} = {value}" for key, value in values.items())])


def load(folder, *entries):
    (folder / "harness.toml").write_text("\n\n".join(entries))
    return load_waivers(folder, gates=GATES)


@pytest.mark.parametrize("day", ["2026-12-31", '"2026-12-31"'])
def test_a_waiver_is_read_with_its_last_day(day, tmp_path):
    (waiver,) = load(tmp_path, entry(expires=day))
    assert waiver == Waiver(
        case="lenet5-*-int8", gate="fp32", reason="a new kernel", link="https://tracker/12", expires="2026-12-31"
    )
    assert waiver.matches("lenet5-openvino-int8")
    assert not waiver.matches("lenet5-openvino-fp16")
    assert waiver.holds_on("2026-12-31")
    assert not waiver.holds_on("2027-01-01")


def test_tolerances_stand_beside_waivers(tmp_path):
    load(tmp_path, "[tolerance]\nmax_drop = 0.01", entry())
    assert load_tolerances(tmp_path, backends=()).scopes == {("", "", ""): {"max_drop": 0.01}}


def test_without_settings_there_are_none(tmp_path):
    assert load_waivers(tmp_path, gates=GATES) == ()


def test_a_waiver_of_an_error_says_which(tmp_path):
    (waiver,) = load(tmp_path, entry(gate='"error"', error='"OpenVINO cannot convert"'))
    assert waiver.takes_error("lenet5-openvino-int8: OpenVINO cannot convert lenet5.onnx")
    assert not waiver.takes_error("lenet5-openvino-int8: crashed (SIGSEGV)")
    (other,) = load(tmp_path, entry())
    assert not other.takes_error("")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_refused_by_name(key, tmp_path):
    with pytest.raises(ConfigError, match=rf"\[\[waiver\]\] 2: {key} missing"):
        load(tmp_path, entry(), entry(**{key: None}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gate": '"error"'}, "error missing; a waiver needs case, gate, reason, link, expires, error"),
        ({"gate": '"error"', "error": '"a"'}, "error is 'a'; expected a part of the message, 8 characters or more"),
        ({"gate": '"error"', "error": "3"}, "error is 3; expected a text"),
        ({"error": '"cannot convert"'}, 'error is of a waiver with gate = "error"; leave it out'),
        ({"gate": '"fp23"'}, r"gate: unknown name 'fp23'; did you mean 'fp32'\?"),
        ({"until": '"x"'}, "unknown name 'until'"),
        ({"expires": '"soon"'}, "expires is 'soon'; expected a day like 2026-12-31"),
        ({"expires": "2026-12-31T00:00:00"}, "expected a day"),
        ({"expires": "20261231"}, "expected a day"),
        ({"expires": "false"}, "expected a day"),
        ({"reason": '" "'}, "reason is ' '; expected a text"),
        ({"link": "7"}, "link is 7; expected a text"),
        ({"case": "[]"}, r"case is \[\]; expected a text"),
    ],
)
def test_a_bad_entry_is_refused(changes, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, entry(**changes))


@pytest.mark.parametrize("text", ["waiver = 3", "[waiver]\ncase = 'x'", "waiver = [3]"])
def test_what_is_no_list_of_tables_is_refused(text, tmp_path):
    with pytest.raises(ConfigError, match=r"expected (tables|a table)"):
        load(tmp_path, text)
