"""Engines that run ONNX models, on one thread."""

import sys

import numpy as np
import pytest

# Importing OpenVINO would report the import over the network; without this package it does not.
sys.modules.setdefault("openvino_telemetry", None)


def run_onnxruntime(model, images):
    """The model's output for its input `images`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"images": images})[0]


def run_openvino(model, images):
    """The same in OpenVINO, in float32; skips the test if it is not installed."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(read, "CPU", settings)
    return np.array(compiled({"images": images})[0])


ENGINES = {"ONNX Runtime": run_onnxruntime, "OpenVINO": run_openvino}
