"""Every option with a value that is not its default, as typed and as TOML; and a parser for both."""

import argparse

from harness.options.parsing import add_options, options_from_namespace

# flag -> (words of a command line, value in [run] of harness.toml or None where it belongs elsewhere)
EVERY = {
    "--backend": (["--backend=ort,trt", "--backend=openvino"], ["ort", "trt", "openvino"]),
    "--precision": (["--precision=int8,bf16"], ["int8", "bf16"]),
    "--engine": (["--engine=/out/my net.plan", "--engine=/out/b.ort"], ["/out/my net.plan", "/out/b.ort"]),
    "--recipe": (["--recipe=qdq-entropy", "--recipe=runtime"], "qdq-entropy,runtime"),
    "--model": (["--model=mlp,/models/own.onnx"], ["mlp", "/models/own.onnx"]),
    "--keep-float": (["--keep-float=^/conv\\d, x$", "--keep-float=fc"], ["^/conv\\d, x$", "fc"]),
    "--device": (["--device=cuda:1"], "cuda:1"),
    "--extension-dir": (["--extension-dir=/ext/a b", "--extension-dir=/ext/c"], ["/ext/a b", "/ext/c"]),
    "--backend-option": (
        ["--backend-option=my-engine.streams=4", "--backend-option=my-engine.mode=a=b, c"],
        ["my-engine.streams=4", "my-engine.mode=a=b, c"],
    ),
    "--input-scale": (["--input-scale=0.25"], 0.25),
    "--num-classes": (["--num-classes=12"], 12),
    "--label-offset": (["--label-offset=-1"], -1),
    "--shapes": (["--shapes=ids:1x128,mask:1x128", "--shapes=a:b:2"], ["ids:1x128", "mask:1x128", "a:b:2"]),
    "--min-shapes": (["--min-shapes=ids:1x1"], "ids:1x1"),
    "--max-shapes": (["--max-shapes=ids:8x512"], ["ids:8x512"]),
    "--input-range": (["--input-range=ids:0..29999,x:-1.5..2"], ["ids:0..29999", "x:-1.5..2"]),
    "--state": (["--state=h=hn", "--state=c=cn"], ["h=hn", "c=cn"]),
    "--dataset": (["--dataset=/data/my digits"], "/data/my digits"),
    "--data-dir": (["--data-dir=/data/mnist"], "/data/mnist"),
    "--split": (["--split=train"], "train"),
    "--score-images": (["--score-images=500"], 500),
    "--score-from": (["--score-from=7"], 7),
    "--calibration-dataset": (["--calibration-dataset=/data/other digits"], "/data/other digits"),
    "--calibration-images": (["--calibration-images=50"], "50"),
    "--calibration-from": (["--calibration-from=30000"], 30000),
    "--calibration-split": (["--calibration-split=test"], "test"),
    "--batch-size": (["--batch-size=8,1,32"], [8, 1, 32]),
    "--score-batch": (["--score-batch=64"], 64),
    "--timing-window": (["--timing-window=end_to_end"], "end_to_end"),
    "--timing-launch": (["--timing-launch=graph"], "graph"),
    "--timing-rounds": (["--timing-rounds=9"], 9),
    "--throughput": (["--throughput"], True),
    "--concurrency": (["--concurrency=1,3"], [1, 3]),
    "--energy-loops": (["--energy-loops=3"], 3),
    "--threads": (["--threads=2"], 2),
    "--worker-timeout": (["--worker-timeout=30"], 30),
    "--stage-timeout": (["--stage-timeout=build=3000", "--stage-timeout=score=5.5"], ["build=3000", "score=5.5"]),
    "--worker-python": (["--worker-python=/venv/bin/python"], "/venv/bin/python"),
    "--control-python": (["--control-python=/old/bin/python"], "/old/bin/python"),
    "--strict-verdicts": (["--strict-verdicts"], True),
    "--floor": (["--floor=98%"], None),
    "--max-drop": (["--max-drop=57%"], None),
    "--max-slowdown": (["--max-slowdown=0.05"], None),
    "--max-build-slowdown": (["--max-build-slowdown=50%"], None),
    "--max-engine-growth": (["--max-engine-growth=0.05"], None),
    "--max-memory-growth": (["--max-memory-growth=10%"], None),
    "--max-drift": (["--max-drift=3%"], None),
    "--alpha": (["--alpha=0.01"], None),
    "--baseline": (["--baseline=ignore"], "ignore"),
    "--baseline-dir": (["--baseline-dir=/runs/baselines"], "/runs/baselines"),
    "--update-baselines": (["--update-baselines"], True),
    "--require-precision": (["--require-precision"], True),
    "--allow-chance": (["--allow-chance"], True),
    "--accept-regressions": (["--accept-regressions"], True),
    "--report-dir": (["--report-dir=/runs/reports"], "/runs/reports"),
    "--report-url": (["--report-url=https://ci.example/report"], "https://ci.example/report"),
    "--engine-cache": (["--engine-cache=/cache"], "/cache"),
    "--rebuild": (["--rebuild"], True),
    "--shard": (["--shard=3"], 3),
    "--shard-plan": (["--shard-plan=/fleet/shards.json"], "/fleet/shards.json"),
    "--shard-attempt": (["--shard-attempt=2"], 2),
    "--resume": (["--resume=20260101T000000Z"], "20260101T000000Z"),
    "--cuda-tf32": (["--cuda-tf32"], True),
    "--litert-reference-kernels": (["--litert-reference-kernels"], True),
    "--opencv-engine": (["--opencv-engine=new"], "new"),
    "--openvino-extension": (["--openvino-extension=/libs/own.so"], "/libs/own.so"),
    "--ort-custom-ops": (["--ort-custom-ops=/libs/own.so"], ["/libs/own.so"]),
    "--openvino-hint": (["--openvino-hint=throughput"], "throughput"),
    "--openvino-streams": (["--openvino-streams=2"], 2),
    "--openvino-pinning": (["--openvino-pinning=off"], "off"),
    "--openvino-snippets": (["--openvino-snippets=off"], "off"),
    "--tensorflow-mode": (["--tensorflow-mode=xla"], "xla"),
    "--torch-mode": (["--torch-mode=script"], "script"),
    "--trt-workspace": (["--trt-workspace=256"], 256),
    "--trt-optimization-level": (["--trt-optimization-level=0"], 0),
    "--trt-tactic-sources": (
        ["--trt-tactic-sources=EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS"],
        ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"],
    ),
    "--trt-int8-only": (["--trt-int8-only"], True),
    "--trt-version-compatible": (["--trt-version-compatible"], True),
    "--trt-hardware-compatible": (["--trt-hardware-compatible"], True),
    "--trt-profile": (["--trt-profile=1:4:8", "--trt-profile=9:16:64"], ["1:4:8", "9:16:64"]),
    "--trt-plugin": (
        ["--trt-plugin=/lib/one, two.so", "--trt-plugin=/lib/three.so"],
        ["/lib/one, two.so", "/lib/three.so"],
    ),
    "--trt-ranges": (["--trt-ranges=/data/ranges.json"], "/data/ranges.json"),
    "--trt-quantile": (["--trt-quantile=99.99%"], "99.99%"),
    "--trt-cutoff": (["--trt-cutoff=0"], 0),
    "--calibration-batch": (["--calibration-batch=50"], 50),
}
# Neither what the case itself says, nor what no result depends on.
NOT_REPEATED = {
    "--update-baselines",
    "--accept-regressions",
    "--report-dir",
    "--report-url",
    "--engine-cache",
    "--rebuild",
    "--resume",
    "--shard",
    "--shard-plan",
    "--shard-attempt",
}
SELECTING = {"--backend", "--precision", "--recipe", "--model", "--engine"}


def parser_of_options():
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    add_options(parser.add_argument)
    return parser


def options_of(*words, root):
    return options_from_namespace(parser_of_options().parse_args(list(words)), root=root)


def every_word():
    return [word for words, _ in EVERY.values() for word in words]
