"""The 14 findings of ChestX-ray14, in the order of the published lists and weights (Wang et al. 2017)."""

CLASS_NAMES = [
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
]
N_CLASSES = len(CLASS_NAMES)
