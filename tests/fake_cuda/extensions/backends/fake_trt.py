"""The TensorRT adapter on the fake TensorRT, for workers. Models are JSON, so there is nothing to convert.

NN_FAKE_LOG names a file that is told what each process builds and loads.
"""

import os

from harness.backends.trt.adapter import TrtBackend
from harness.records import Artifact
from harness.worker import opening


def unconverted(spec, precision, recipe, **_):
    digest = spec.sha256[:-4] + precision.value
    return Artifact(
        model=spec.name,
        precision=precision,
        recipe=recipe,
        onnx_path=spec.onnx_path,
        sha256=digest,
        source_sha256=spec.sha256,
    )


opening.prepare_artifact = unconverted


class ToldBackend(TrtBackend):
    def build(self, artifact, **words):
        engine = super().build(artifact, **words)
        self._tell(f"build:{engine.facts.cache}", artifact)
        return engine

    def load(self, file, artifact, **words):
        self._tell("load", artifact)
        return super().load(file, artifact, **words)

    def _tell(self, what, artifact):
        with open(os.environ["NN_FAKE_LOG"], "a") as log:
            log.write(f"{os.getpid()} {what} {artifact.precision.value}\n")


BACKEND = ToldBackend("fake-trt", "fake_tensorrt", "pip install nothing")
