"""PyTorch's own CUDA graph of a module, timed with PyTorch's own events: what our times of `torch-cuda` are held to."""

import numpy as np
from gpu_scoring import real_batches

from harness.backends.torch.aoti import set_tf32
from harness.backends.torch.graph import module_of
from harness.models.onnx_graph import load_model

CALLS, ROUNDS = 100, 9
MAX_DIFFERENCE = 0.03
NS_PER_MS = 1e6


def own_replays(onnx_path, images):
    """Return a function that gives the time of one call [ns], from CALLS replays of PyTorch's own graph."""
    import torch

    set_tf32(torch, False)
    module, side = module_of(torch, load_model(onnx_path)).to("cuda:0"), torch.cuda.Stream()
    source = torch.from_numpy(images.copy()).to("cuda:0")
    with torch.inference_mode():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            target = module(source).clone()
            for _ in range(3):
                target.copy_(module(source))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            target.copy_(module(source))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample():
        start.record()
        for _ in range(CALLS):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * NS_PER_MS / CALLS

    return sample


def ratios(engine, onnx_path, spec):
    """Return batch -> medians over interleaved rounds: our time of a call, and that of a second graph of PyTorch's own,
    each divided by that of the first.
    """
    found = {}
    for n_images in (1, 100):
        images = real_batches(spec, n_images, n_images)[0]
        timer = engine.timer(images, window="compute", launch="graph")
        timer.calls_per_sample = CALLS
        ours = lambda timer=timer: timer.sample(1)[0]  # noqa: E731
        arms = own_replays(onnx_path, images), ours, own_replays(onnx_path, images)
        for arm in arms:
            arm()
        rounds = np.array([[arm() for arm in arms] for _ in range(ROUNDS)])
        found[n_images] = tuple(float(np.median(rounds[:, arm] / rounds[:, 0])) for arm in (1, 2))
    return found
