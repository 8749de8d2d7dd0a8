"""TensorRT's group of the settings: what the adapter reads of it, and what the invariance check asks."""

from harness.backends import load_backend
from harness.backends.trt.options import TrtOptions
from harness.protocols import BoundsBatches
from harness.specs import BuildOptions

SETTINGS = {"cuda": {"tf32": True}, "trt": {"profiles": [[1, 2, 4], [8, 8, 16]], "quantile": 1}}


def test_the_adapter_reads_its_own_group_and_the_shared_one():
    options = TrtOptions.of(SETTINGS)  # lists, as JSON brings them into a worker
    assert options == TrtOptions(tf32=True, profiles=((1, 2, 4), (8, 8, 16)), quantile=1.0)
    assert TrtOptions.of({"ort": {"tf32": True}}) == TrtOptions()


def test_the_bounds_of_every_profile_are_the_batches_to_try():
    backend = load_backend("trt")
    assert isinstance(backend, BoundsBatches)
    assert backend.batch_bounds(BuildOptions(settings=SETTINGS)) == (1, 2, 4, 8, 8, 16)
    assert backend.batch_bounds(BuildOptions()) == ()
    assert not isinstance(load_backend("ort"), BoundsBatches)
