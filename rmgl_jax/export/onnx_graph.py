"""A small writer of ONNX graphs: nodes in order, and every array stored once."""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from data_prep.errors import InputError, MissingPackageError

OPSET = 18
"""Version of ONNX's operators: ONNX Runtime 1.14, OpenVINO 2023 and later versions read it."""
IR_VERSION = 8
"""Version of the file format, of the same age."""
MAX_BYTES = 2**31 - 1
"""Size limit of a protocol buffer."""


class GraphWriter:
    """Collects nodes and arrays, which `model` makes an ONNX model of.

    Methods that add something return the name of its value, to be used as an input later.
    """

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def weight(self, name: str, values: np.ndarray) -> str:
        """Stores an array under a name of its own.

        Raises:
            ValueError: there is an array of this name already.
        """
        if name in self._arrays:
            raise ValueError(f"There are two arrays {name}.")
        self._arrays[name] = np.asarray(values, order="C")
        return name

    def constant(self, values: Any, dtype: type[np.generic] = np.int64) -> str:
        """Stores a small array; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.weight(f"constant{len(self._constants)}", array)
        return self._constants[key]

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output, whose name is made up unless `output` is given."""
        name = output or f"{operator.lower()}{len(self._nodes)}"
        node = self._onnx.helper.make_node(operator, inputs, [name], name=name, **attributes)
        self._nodes.append(node)
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshapes; 0 keeps the axis of this position, -1 is what remains."""
        return self.add("Reshape", x, self.constant(shape))

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """Permutes the axes."""
        return self.add("Transpose", x, perm=list(axes))

    def cast(self, x: str, dtype: type[np.generic]) -> str:
        """Converts to another type."""
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", x, to=element)

    def reduce(self, kind: str, x: str, axis: int, keepdims: bool = False) -> str:
        """Reduces one axis by "Max", "Mean", "Sum" or "L2"."""
        return self.add(f"Reduce{kind}", x, self.constant([axis]), keepdims=int(keepdims))

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[type[np.generic], Sequence[int | str]]],
        outputs: Mapping[str, tuple[type[np.generic], Sequence[int | str]]],
        metadata: Mapping[str, str],
    ) -> Any:
        """Makes the model, an `onnx.ModelProto`.

        Args:
            name: name of the graph.
            inputs: type and shape of each input; an axis of any length has a name.
            outputs: type and shape of each output.
            metadata: strings that are stored with the model.

        Raises:
            InputError: the arrays are too large for one file.
        """
        size = sum(array.nbytes for array in self._arrays.values())
        if size >= MAX_BYTES:
            raise InputError(
                f"The model has {size:,} bytes of weights, but an ONNX file holds less than "
                f"{MAX_BYTES:,}."
            )
        onnx, helper = self._onnx, self._onnx.helper

        def describe(values: Mapping[str, tuple[type[np.generic], Sequence[int | str]]]) -> list:
            return [
                helper.make_tensor_value_info(
                    value, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape)
                )
                for value, (dtype, shape) in values.items()
            ]

        initializers = [
            onnx.numpy_helper.from_array(array, name) for name, array in self._arrays.items()
        ]
        graph = helper.make_graph(
            self._nodes, name, describe(inputs), describe(outputs), initializers
        )
        model = helper.make_model(
            graph,
            producer_name="rmgl_jax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model


def import_onnx() -> ModuleType:
    """Imports the optional package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise MissingPackageError(
            "ONNX files need the package onnx: pip install 'rmgl_jax[export]'."
        ) from error
