"""Scores and features, fast. The names below are there without Paddle, because `--help` needs them."""

ENGINES = ("auto", "openvino", "onednn", "compiled", "dygraph")
PRECISIONS = ("float32", "bfloat16", "float16")
