"""How good a map is: scores by pixel, border and object, by region and pooled, and what a model is worth elsewhere."""

__all__: list[str] = []
