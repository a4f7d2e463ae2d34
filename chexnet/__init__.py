"""CheXNet: DenseNet121 with a 14-way sigmoid head, its data, and its class activation maps."""
import cxr  # noqa: F401  prepares the process before Paddle is imported
