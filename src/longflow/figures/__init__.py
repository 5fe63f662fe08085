"""Pictures of what a model does. Numpy arrays in, the bytes of a PNG out; nothing here knows what a flow is."""

from longflow.figures.clouds import layers, scatter
from longflow.figures.comparison import comparison
from longflow.figures.confusion import confusion
from longflow.figures.curves import learning_curve
from longflow.figures.maps import brightest_of, density, regular_grid, warped_grid
from longflow.figures.pixels import blocks, image_grid, strips, temperatures
from longflow.figures.spectrum import spectrum

__all__ = [
    "blocks",
    "brightest_of",
    "comparison",
    "confusion",
    "density",
    "image_grid",
    "layers",
    "learning_curve",
    "regular_grid",
    "scatter",
    "spectrum",
    "strips",
    "temperatures",
    "warped_grid",
]
