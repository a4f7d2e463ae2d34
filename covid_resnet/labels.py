"""The classes of the COVID notebook, in the order of its lists and weights."""

CLASS_NAMES = ("COVID", "LungOpacity", "Normal", "ViralPneumonia")
