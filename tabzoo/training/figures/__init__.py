from tabzoo.training.figures.drawing import draw_curves as draw_curves
from tabzoo.training.figures.drawing import draw_samples as draw_samples
from tabzoo.training.figures.drawing import draw_similarity as draw_similarity

__all__ = ["draw_curves", "draw_samples", "draw_similarity"]
