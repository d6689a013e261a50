"""Compares the speed of a network in ONNX Runtime, OpenVINO and JAX on this processor.

    python -m benchmarks.engines                                       # thin network at 96x48
    python -m benchmarks.engines --preset paper --batch-size 8         # ResNet-50 at 384x128
    python -m benchmarks.engines --model runs/market --batch-size 32   # a trained model

Every engine embeds the same uint8 images in float32, in turns within one process, so that load of
the machine meets all of them. Prints medians over the rounds, and each engine's speed relative to
JAX. Engines that are not installed are left out. All use the same number of threads.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from data_prep.workers import cores
from rmgl_jax.evaluation.embedding import embed_batch, inference_variables
from rmgl_jax.experiment import presets
from rmgl_jax.export.model_file import load_model
from rmgl_jax.export.onnx import onnx_model
from rmgl_jax.models.rmgl import RMGL

Engine = Callable[[np.ndarray], np.ndarray]

CONFIGS = {
    "tiny": presets.tiny("synthetic/tiny"),
    "small": presets.small("synthetic/demo", epochs=3),
    "paper": presets.paper("synthetic/demo"),
}


def onnxruntime_engine(path: Path) -> Engine:
    """Loads an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def openvino_engine(path: Path) -> Engine:
    """Loads an ONNX file in OpenVINO, with float32 arithmetic."""
    # Importing OpenVINO would report the import over the network; without this package it does not.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: compiled({"images": images})[0]


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small", choices=CONFIGS)
    parser.add_argument("--model", type=Path, help="trained model, instead of a preset")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-flip", action="store_true")
    arguments = parser.parse_args()
    if arguments.model:
        model = load_model(arguments.model)
        config, variables = model.config.model, model.variables
    else:
        config = CONFIGS[arguments.preset].model
        create = jax.jit(lambda key, images: RMGL(config).init(key, images, train=False))
        variables = create(jax.random.key(0), np.zeros((1, *config.image_size, 3), np.float32))
    config = replace(config, dtype="float32")
    flip = not arguments.no_flip
    folded = inference_variables(config, variables)
    shape = (arguments.batch_size, *config.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    engines: dict[str, Engine] = {
        "JAX": lambda images: np.asarray(embed_batch(config, folded, jnp.asarray(images), flip))
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        path.write_bytes(onnx_model(config, variables, flip=flip).SerializeToString())
        for name, load in (("ONNX Runtime", onnxruntime_engine), ("OpenVINO", openvino_engine)):
            try:
                engines[name] = load(path)
            except ImportError:
                print(f"{name} is not installed.")
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        outputs = {name: engine(images) for name, engine in engines.items()}
        for _ in range(arguments.rounds):
            for name, engine in engines.items():
                start = time.perf_counter()
                engine(images)
                seconds[name].append(time.perf_counter() - start)
    table = Table(
        title=f"{arguments.model or arguments.preset}: batches of {arguments.batch_size} images at "
        f"{'x'.join(map(str, config.image_size))}, float32, {cores()} threads"
        f"{'' if flip else ', not mirrored'}"
    )
    for column in ("", "median ms", "best ms", "images/s", "speed", "difference"):
        table.add_column(column, justify="right" if column else "left")
    reference = float(np.median(seconds["JAX"]))
    for name, times in seconds.items():
        median = float(np.median(times))
        difference = np.abs(outputs[name] - outputs["JAX"]).max()
        table.add_row(
            name,
            f"{1000 * median:.1f}",
            f"{1000 * min(times):.1f}",
            f"{arguments.batch_size / median:,.0f}",
            f"{reference / median:.2f}",
            f"{difference:.1e}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
