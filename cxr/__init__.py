"""What both models stand on: images, weights, CAM toolbox, training, metrics, pictures.

Importing `cxr` prepares the process for Paddle (see `cxr.runtime`) and imports nothing heavy.
"""
from cxr.runtime import configure

__version__ = "0.1.0"

configure()
