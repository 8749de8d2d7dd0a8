"""Calibration tables: TensorRT's text and JSON, read, written and compared; a damaged one is one line."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.precision.tables import CalibrationTable, drift, json_text, read_table, table_from_text, table_text

TABLE = "TRT-8600-EntropyCalibration2\ndata: 3c008102\n(Unnamed Layer* 3) [Constant]_output: 3f800000\nnever: 0\n"
LEGACY = "03ff00000000000003feffffde7210be9\npool1: 3cdb9660\nprob: 3c010204\n"


def test_tensorrts_text_is_read_and_written_back_byte_for_byte():
    table = table_from_text(TABLE, "t")
    assert table.ranges["(Unnamed Layer* 3) [Constant]_output"] == 127
    assert table.ranges["data"] == struct.unpack(">f", bytes.fromhex("3c008102"))[0] * 127
    assert table.ranges["never"] == 0
    assert table.made_by == "EntropyCalibration2 of TensorRT 8600"
    assert table_text(table) == TABLE.replace("never: 0\n", "never: 00000000\n")


SPACED = "0 3fe0000000000000 3fefae147ae147ae\npool1: 3cdb9660\n"  # of TensorRT 8.6.0, as read on a GPU


@pytest.mark.parametrize(
    ("text", "made_by"), [(LEGACY, "quantile 0.999999, cutoff 1"), (SPACED, "quantile 0.99, cutoff 0.5")]
)
def test_the_legacy_calibrators_table_says_its_quantile_and_cutoff(text, made_by):
    table = table_from_text(text, "t")
    assert table.made_by == f"legacy calibrator, {made_by}"
    assert table_text(table) == text


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name.isprintable()), st.floats(0, 2.0**100, width=32)))
def test_a_scale_survives_writing_to_the_last_bit(scales):
    table = CalibrationTable(ranges={name: scale * 127.0 for name, scale in scales.items()})
    text = table_text(table)
    if not scales:
        with pytest.raises(DataError, match="names no tensor"):
            table_from_text(text, "t")
        return
    assert table_text(table_from_text(text, "t")) == text
    assert table_from_text(json_text(table), "t").ranges == {name: value or 1 for name, value in table.ranges.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "t: its first line is ''; expected a calibration table"),
        ("data: 3c008102\n", "its first line is 'data: 3c008102'"),
        ("TRT-8600-MinMaxCalibration\n", "names no tensor; the table is cut short"),
        ("TRT-8600-MinMaxCalibration\ndata: 3c0081\nda", "t:3: found 'da', expected NAME: SCALE"),
        ("TRT-8600-MinMaxCalibration\ndata: scale\n", "t:2: found 'data: scale', expected NAME: SCALE"),
        ("TRT-8600-MinMaxCalibration\ndata: 3c00810203\n", "t:2: .*expected NAME: SCALE"),
        ("TRT-8600-MinMaxCalibration\na: 7fc00000\n", "t:2: tensor a has scale nan; expected 0 or more"),
        ("TRT-8600-MinMaxCalibration\na: 7f800000\n", "t:2: tensor a has scale inf"),
        ("TRT-8600-MinMaxCalibration\na: bf800000\n", "t:2: tensor a has scale -1.0"),
        ("TRT-8600-MinMaxCalibration\na: 1\na: 2\n", "t:3: tensor a stands there twice"),
        ('{"a": 1', "t: Expecting"),
        ("{}", "t: names no tensor"),
        ('{"a": -1}', "t: tensor 'a' has magnitude -1; expected a number of 0 or more"),
        ('{"a": true}', "tensor 'a' has magnitude True"),
        ('{"a": NaN}', "tensor 'a' has magnitude nan"),
    ],
)
def test_a_damaged_table_is_one_line(text, expected):
    with pytest.raises(DataError, match=expected) as error:
        table_from_text(text, "t")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "t").write_bytes(b"\xff\xfe\x00")
    bad = {tmp_path / "t": "is no text", tmp_path / "absent": "cannot be read", tmp_path: "cannot be read"}
    for path, expected in bad.items():
        with pytest.raises(DataError, match=expected):
            read_table(path)


@pytest.mark.parametrize("header", ["mine", "TRT-8.6-Entropy", "TRT-8600-Entropy\nx: 1"])
def test_a_header_that_tensorrt_would_not_read_is_refused(header):
    with pytest.raises(DataError, match="expected TRT-VERSION-CALIBRATOR"):
        table_text(CalibrationTable(ranges={"a": 1.0}), header)


def test_drift_is_relative_and_the_largest_change_comes_first():
    before = CalibrationTable(ranges={"same": 1.0, "half": 2.0, "double": 1.0, "gone": 1.0, "woke": 0.0, "slept": 0.0})
    after = CalibrationTable(ranges={"same": 1.0, "half": 0.9, "double": 2.0, "new": 1.0, "woke": 3.0, "slept": 0.0})
    rows = drift(before, after)
    assert [(row.tensor, row.change) for row in rows] == [
        ("woke", math.inf),
        ("half", pytest.approx(-0.55)),
        ("double", 1.0),
        ("same", 0.0),
        ("slept", 0.0),
        ("gone", None),
        ("new", None),
    ]
