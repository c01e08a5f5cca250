"""Pages: single HTML files that load nothing, so that they open from a disk, from a mail and without network."""

from tabzoo.pages.environment import render, write_html
from tabzoo.pages.histogram import Histogram, histogram
from tabzoo.pages.intervals import IntervalPlot, interval_plot
from tabzoo.pages.pictures import embed_file, embed_picture

__all__ = [
    "Histogram",
    "IntervalPlot",
    "embed_file",
    "embed_picture",
    "histogram",
    "interval_plot",
    "render",
    "write_html",
]
