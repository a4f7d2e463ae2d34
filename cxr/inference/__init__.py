"""Scores and features, fast. The names below can be had without Paddle, as `--help` needs them."""

ENGINES = ("auto", "openvino", "onednn", "compiled", "dygraph")
PRECISIONS = ("float32", "bfloat16", "float16")
