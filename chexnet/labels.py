"""The 14 classes of ChestX-ray14, in the order of the published lists and weights (Wang et al. 2017)."""

CLASS_NAMES = [
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
]
N_CLASSES = len(CLASS_NAMES)

CHINESE = dict(zip(CLASS_NAMES, (
    "肺不张", "心脏增大", "胸腔积液", "浸润", "肿块", "结节", "肺炎", "气胸",
    "实变", "肺水肿", "肺气肿", "纤维化", "胸膜增厚", "疝",
)))
