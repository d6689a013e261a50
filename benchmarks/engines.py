"""Compares the speed of a network in ONNX Runtime, OpenVINO and JAX on this processor.

    python -m benchmarks.engines                                       # thin network at 96x48
    python -m benchmarks.engines --preset paper --batch-size 8         # ResNet-50 at 384x128
    python -m benchmarks.engines --model runs/market --batch-size 32   # a trained model

Every engine embeds the same uint8 images, in turns within one process, so that load of the machine
meets all of them. Prints medians over the rounds, each engine's speed relative to JAX, and the
smallest cosine similarity to the embeddings of JAX. Engines that are not installed are left out,
and bfloat16 where the processor has none. All use the same number of threads.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from data_prep.errors import ExpectedError
from data_prep.workers import cores
from rmgl_jax.evaluation.embedding import embed_batch, inference_variables
from rmgl_jax.experiment import presets
from rmgl_jax.export.engines import Run, load_engine
from rmgl_jax.export.model_file import load_model
from rmgl_jax.models.rmgl import RMGL

JAX = "jax, float32"
OTHERS = (("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))

CONFIGS = {
    "tiny": presets.tiny("synthetic/tiny"),
    "small": presets.small("synthetic/demo", epochs=3),
    "paper": presets.paper("synthetic/demo"),
}


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small", choices=CONFIGS)
    parser.add_argument("--model", type=Path, help="trained model, instead of a preset")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-flip", action="store_true")
    add_json_option(parser)
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
    engines: dict[str, Run] = {
        JAX: lambda images: np.asarray(embed_batch(config, folded, jnp.asarray(images), flip))
    }
    for engine, precision in OTHERS:
        try:
            run = load_engine(
                engine,
                config,
                variables,
                batch_size=arguments.batch_size,
                flip=flip,
                precision=precision,
            )
        except ExpectedError as error:
            print(error)
        else:
            engines[f"{engine}, {precision}"] = run
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    outputs = {name: engine(images) for name, engine in engines.items()}
    for _ in range(arguments.rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            seconds[name].append(time.perf_counter() - start)
    table = Table(
        title=f"{arguments.model or arguments.preset}: batches of {arguments.batch_size} images at "
        f"{'x'.join(map(str, config.image_size))}, {cores()} threads"
        f"{'' if flip else ', not mirrored'}"
    )
    for column in ("", "median ms", "best ms", "images/s", "speed", "cosine"):
        table.add_column(column, justify="right" if column else "left")
    reference = float(np.median(seconds[JAX]))
    figures = {}
    for name, times in seconds.items():
        median = float(np.median(times))
        cosine = (outputs[name] * outputs[JAX]).sum(axis=1).min()
        figures[name] = {"ms": 1e3 * median, "best ms": 1e3 * min(times), "cosine": float(cosine)}
        table.add_row(
            name,
            f"{1000 * median:.1f}",
            f"{1000 * min(times):.1f}",
            f"{arguments.batch_size / median:,.0f}",
            f"{reference / median:.2f}",
            f"{cosine:.6f}",
        )
    Console(width=100).print(table)
    write_report("engines", arguments, figures)


if __name__ == "__main__":
    main()
