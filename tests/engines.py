"""Engines that run ONNX models, on one thread."""

import pytest

from rmgl_jax.export.engines import open_onnxruntime, open_openvino


def run_onnxruntime(model, images):
    """The model's output for its input `images`."""
    return open_onnxruntime(model.SerializeToString(), threads=1)(images)


def run_openvino(model, images):
    """The same in OpenVINO; skips the test if it is not installed."""
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    return open_openvino(model.SerializeToString(), threads=1)(images)


ENGINES = {"ONNX Runtime": run_onnxruntime, "OpenVINO": run_openvino}
