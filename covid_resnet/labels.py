"""The classes of the COVID notebook, in the order of its lists and weights."""

CLASS_NAMES = ("COVID", "LungOpacity", "Normal", "ViralPneumonia")
CHINESE = dict(zip(CLASS_NAMES, ("新冠肺炎", "肺部阴影", "正常", "病毒性肺炎")))
