"""MVTec AD in numbers (Bergmann et al., MVTec AD, CVPR 2019, Table 1)."""

__all__ = ["IMAGES"]

IMAGES = {
    **{"carpet": (280, 28, 89), "grid": (264, 21, 57), "leather": (245, 32, 92), "tile": (230, 33, 84)},
    **{"wood": (247, 19, 60), "bottle": (209, 20, 63), "cable": (224, 58, 92), "capsule": (219, 23, 109)},
    **{"hazelnut": (391, 40, 70), "metal_nut": (220, 22, 93), "pill": (267, 26, 141), "screw": (320, 41, 119)},
    **{"toothbrush": (60, 12, 30), "transistor": (213, 60, 40), "zipper": (240, 32, 119)},
}
"""Good training, good test and anomalous test images of each class."""
