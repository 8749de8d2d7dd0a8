"""The grid of a run: which columns it has."""

import dataclasses

from render_records import make_run

from harness.records import Status
from harness.report.across import overview_from_rows
from harness.report.rows import rows_from_records
from harness.specs import Precision


def case_like(record, backend, precision, recipe, *, runs=True, model=None):
    case = dataclasses.replace(
        record.case, backend=backend, precision=precision, recipe=recipe, model=model or record.case.model
    )
    status = record.status if runs else Status.UNSUPPORTED
    return dataclasses.replace(record, case=case, status=status, accuracy=record.accuracy if runs else None)


def columns_of(*records):
    return set(overview_from_rows(rows_from_records(records)).columns)


def plain_record():
    return next(one for one in make_run(3)[1] if one.case.precision is Precision.FP32 and one.accuracy)


def test_a_recipe_of_another_runtime_has_no_column_where_one_of_its_own_ran():
    record = plain_record()
    fp32 = case_like(record, "mnn", Precision.FP32, "none")
    ran = case_like(record, "mnn", Precision.INT8, "mnn-kl")
    other = case_like(record, "mnn", Precision.INT8, "litert-int8", runs=False)
    assert columns_of(fp32, ran, other) == {("mnn", "fp32"), ("mnn", "int8 mnn-kl")}


def test_a_precision_that_a_backend_lacks_keeps_its_column():
    record = plain_record()
    fp32 = case_like(record, "tensorflow", Precision.FP32, "none")
    lacking = case_like(record, "tensorflow", Precision.INT8, "qdq-minmax", runs=False)
    assert columns_of(fp32, lacking) == {("tensorflow", "fp32"), ("tensorflow", "int8")}


def test_a_recipe_that_ran_for_one_model_keeps_its_column():
    record = plain_record()
    ran = case_like(record, "mnn", Precision.INT8, "mnn-kl")
    some = case_like(record, "mnn", Precision.INT8, "mnn-ema", runs=False)
    same = case_like(record, "mnn", Precision.INT8, "mnn-ema", model="another")
    assert columns_of(ran, some, same) == {("mnn", "int8 mnn-kl"), ("mnn", "int8 mnn-ema")}
