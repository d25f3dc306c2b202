"""One interactive map of images, predictions and outlines; pictures of a window of any of them."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.viewer.mapview import MapView
    from rtsx.viewer.pyramid import Box, Pyramid, ReadWindow
    from rtsx.viewer.render import Picture, Style, draw_picture, draw_window, styles_of

__getattr__ = lazy(__name__)
