"""ONNX Runtime and OpenVINO: engines that run the ONNX graph of a network on CPUs."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from data_prep.errors import InputError, MissingPackageError
from data_prep.workers import cores
from rmgl_jax.config import Arithmetic, Engine, ModelConfig
from rmgl_jax.export.onnx import INPUT, onnx_model

Run: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Maps images, as the graph takes them, to unit embeddings, float32 `[B, E]`."""


def load_engine(
    engine: Engine,
    config: ModelConfig,
    variables: Mapping[str, Any],
    *,
    batch_size: int,
    flip: bool = True,
    precision: Arithmetic = "float32",
) -> Run:
    """Loads a network in an engine other than JAX.

    Args:
        engine: "onnxruntime" or "openvino".
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        batch_size: B, the number of images in every call.
        flip: Average each embedding with that of the mirrored image.
        precision: type of the arithmetic; the weights are float32.

    Returns:
        A function from uint8 images `[B, H, W, 3]` to unit embeddings.

    Raises:
        MissingPackageError: the package of the engine, or onnx, is not installed.
        InputError: the engine has no arithmetic of type `precision` on this processor.
    """
    open_graph = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}[engine]
    # Before the graph is made, which takes longer than to find out that a package is missing.
    check_engine(engine, precision)
    graph = onnx_model(config, variables, flip=flip).SerializeToString()
    return open_graph(graph, batch_size=batch_size, precision=precision)


def check_engine(engine: Engine, precision: Arithmetic) -> None:
    """Checks that an engine is installed and computes in a type on this processor.

    Raises:
        MissingPackageError: the package of the engine is not installed.
        InputError: the engine has no arithmetic of type `precision` on this processor.
    """
    has_bfloat16 = True
    if engine == "onnxruntime":
        _import_onnxruntime()
        has_bfloat16 = False
    elif engine == "openvino":
        capabilities = _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        has_bfloat16 = "BF16" in capabilities
    if precision == "bfloat16" and not has_bfloat16:
        raise InputError(
            f"The engine {engine} does not compute in bfloat16 on this processor, only in float32."
        )


def open_onnxruntime(
    graph: bytes,
    *,
    batch_size: int | None = None,
    precision: Arithmetic = "float32",
    threads: int | None = None,
) -> Run:
    """Opens a serialized graph in ONNX Runtime, which has float32 arithmetic only.

    Args:
        graph: the serialized model.
        batch_size: not needed: batches may differ in size.
        precision: see `check_engine`.
        threads: by default as many as this process has cores.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        InputError: `precision` is bfloat16.
    """
    check_engine("onnxruntime", precision)
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {INPUT: images})[0])


def open_openvino(
    graph: bytes,
    *,
    batch_size: int | None = None,
    precision: Arithmetic = "float32",
    threads: int | None = None,
) -> Run:
    """Opens a serialized graph in OpenVINO on the CPU.

    Args:
        graph: the serialized model.
        batch_size: images in every call, which makes a faster program; None is any number.
        precision: type of the arithmetic.
        threads: by default as many as this process has cores.

    Raises:
        MissingPackageError: openvino is not installed.
        InputError: the processor has no bfloat16 arithmetic.
    """
    check_engine("openvino", precision)
    core = _import_openvino().Core()
    model = core.read_model(graph)
    if batch_size is not None:
        shape = [axis.get_length() for axis in list(model.input(INPUT).partial_shape)[1:]]
        model.reshape({INPUT: [batch_size, *shape]})
    settings = {
        # Without the hint OpenVINO takes bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads or cores(),
    }
    compiled = core.compile_model(model, "CPU", settings)
    # A copy, because the memory of the output belongs to the engine and is used again.
    return lambda images: np.array(compiled({INPUT: images})[0], np.float32)


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            "The engine onnxruntime is a package: pip install 'rmgl_jax[export]'."
        ) from error
    return onnxruntime


def _import_openvino() -> Any:
    # Importing OpenVINO reports the import to Intel over the network; without this package it does
    # not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError(
            "The engine openvino is a package: pip install 'rmgl_jax[openvino]'."
        ) from error
    return openvino
