"""Graphs of TensorFlow that OpenVINO and the converter to ONNX understand."""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.grappler import tf_optimizer

__all__ = ["portable_graph"]

_LOOPS = ("StatelessWhile", "While")


def portable_graph(function: Any) -> tuple[tf.Graph, list[tf.Tensor]]:
    """Returns the graph of a function, with its weights as constants.

    Shapes are static, so that the arithmetic on them is computed here, once.
    Operations that other runtimes lack or mistake are replaced by others:

    - Products that ignore NaN (`MulNoNan`) are plain products.
    - Sums over no axis are the values themselves.
    - log1p(x) is log(1 + x), which is right to 6e-8.
    - A convolution with explicit padding is padding, then a convolution.
    - Assertions are left out.
    - Loops hold the constants that they use; converters need to see weights.

    Args:
        function: Callable. A concrete function with static input shapes.

    Returns:
        The graph, in which each input is a placeholder of its name, and the
        outputs in the order of the function's flat outputs.
    """
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        function, lower_control_flow=False
    )
    outputs = [tensor.name for tensor in frozen.outputs]
    graph = frozen.graph.as_graph_def()
    _without_assertions(graph.node)
    for body in graph.library.function:
        _without_assertions(body.node_def)
        body.control_ret.clear()
        del body.signature.control_output[:]
    bodies = {f.signature.name: f for f in graph.library.function}
    _sink_constants(graph.node, bodies, suffix="")
    graph = _folded(
        graph, [*(tensor.name for tensor in frozen.inputs), *outputs]
    )
    _replace(graph.node, suffix="")
    for body in graph.library.function:
        _replace(body.node_def, suffix=":output:0")
    imported = tf.Graph()
    with imported.as_default():
        return imported, tf.graph_util.import_graph_def(
            graph, name="", return_elements=outputs
        )


def _folded(graph: Any, kept: Iterable[str]) -> Any:
    """Computes what depends on constants and static shapes alone.

    Args:
        graph: `GraphDef`.
        kept: Names of the tensors that must remain.
    """
    imported = tf.Graph()
    with imported.as_default():
        tf.graph_util.import_graph_def(graph, name="")
        meta_graph = tf.compat.v1.train.export_meta_graph()
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    config = tf.compat.v1.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.optimizers.extend(["constfold", "dependency"])
    rewrites.min_graph_nodes = -1  # small ones too
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _without_assertions(nodes: Any) -> None:
    """Removes assertions, and control dependencies, which then have no use."""
    kept = [node for node in nodes if node.op != "Assert"]
    for node in kept:
        inputs = [i for i in node.input if not i.startswith("^")]
        del node.input[:]
        node.input.extend(inputs)
    del nodes[:]
    nodes.extend(kept)


def _replace(nodes: Any, *, suffix: str) -> None:
    """Replaces operations in a graph or function.

    Args:
        nodes: Repeated `NodeDef`.
        suffix: String. What follows the name of a node where another one uses
            its output.
    """
    constants = _constants(nodes, suffix)
    for node in list(nodes):
        if node.op == "MulNoNan":
            node.op = "Mul"
        elif node.op == "Sum":
            axes = constants.get(node.input[1])
            if axes is not None and not _value(axes).size:
                node.op = "Identity"
                del node.input[1:]
                del node.attr["keep_dims"], node.attr["Tidx"]
        elif node.op == "Log1p":
            _add_one_before(node, nodes, suffix)
        elif node.op == "Conv2D" and node.attr["padding"].s == b"EXPLICIT":
            _pad_before(node, nodes, suffix)


def _pad_before(node: Any, nodes: Any, suffix: str) -> None:
    padding = np.reshape(node.attr["explicit_paddings"].list.i, [-1, 2])
    paddings = _add_constant(nodes, f"{node.name}/paddings", padding, tf.int32)
    padded = nodes.add(name=f"{node.name}/padded", op="Pad")
    padded.input.extend([node.input[0], paddings + suffix])
    padded.attr["T"].CopyFrom(node.attr["T"])
    padded.attr["Tpaddings"].type = tf.int32.as_datatype_enum
    node.input[0] = padded.name + suffix
    node.attr["padding"].s = b"VALID"
    del node.attr["explicit_paddings"]


def _add_one_before(node: Any, nodes: Any, suffix: str) -> None:
    dtype = tf.dtypes.as_dtype(node.attr["T"].type)
    one = _add_constant(nodes, f"{node.name}/one", 1.0, dtype)
    added = nodes.add(name=f"{node.name}/added", op="AddV2")
    added.input.extend([node.input[0], one + suffix])
    added.attr["T"].CopyFrom(node.attr["T"])
    node.op = "Log"
    # In a function, the output of an addition is called "z".
    node.input[0] = added.name + suffix.replace("output", "z")


def _add_constant(nodes: Any, name: str, value: Any, dtype: tf.DType) -> str:
    constant = nodes.add(name=name, op="Const")
    constant.attr["dtype"].type = dtype.as_datatype_enum
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
    return name


def _sink_constants(nodes: Any, bodies: dict[str, Any], *, suffix: str) -> None:
    """Copies constants into the loops that take them, nested ones too."""
    constant_of = _sources(nodes, suffix, _constants(nodes, suffix).get)
    for node in nodes:
        if node.op not in _LOOPS:
            continue
        body = bodies[node.attr["body"].func.name]
        argument_of = _sources(body.node_def, ":output:0", lambda ref: ref)
        results = [body.ret[o.name] for o in body.signature.output_arg]
        for ref, argument, result in zip(
            node.input, body.signature.input_arg, results, strict=True
        ):
            constant = constant_of(ref)
            if constant is None or argument_of(result) != argument.name:
                continue
            copy = body.node_def.add()
            copy.CopyFrom(constant)
            copy.name = f"{argument.name}/constant"
            for user in body.node_def:
                for index, used in enumerate(user.input):
                    if used == argument.name:
                        user.input[index] = f"{copy.name}:output:0"
        _sink_constants(body.node_def, bodies, suffix=":output:0")


def _constants(nodes: Iterable[Any], suffix: str) -> dict[str, Any]:
    return {node.name + suffix: node for node in nodes if node.op == "Const"}


def _sources(
    nodes: Iterable[Any], suffix: str, found: Callable[[str], Any]
) -> Callable[[str], Any]:
    """Returns a function that looks for what a value is, through identities."""
    identities = {
        node.name + suffix: node.input[0]
        for node in nodes
        if node.op == "Identity"
    }

    def source(ref: str) -> Any:
        while ref in identities:
            ref = identities[ref]
        return found(ref)

    return source


def _value(constant: Any) -> np.ndarray:
    return tf.make_ndarray(constant.attr["value"].tensor)
