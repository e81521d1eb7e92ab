"""Pictures of the loss around a network's weights, one panel a network, on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from boundlab.reports.figure import INK, MUTED, empty_figure
from boundlab.train.landscape import Landscape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def landscape_figure(landscapes: Mapping[str, Landscape]) -> Figure:
    """Surfaces of the loss by title, with the same height for the same loss; MissingPackage without matplotlib."""
    figure = empty_figure(4.6 * len(landscapes), 4.2, "constrained")
    lowest = min(float(one.loss.min()) for one in landscapes.values())
    highest = max(float(one.loss.max()) for one in landscapes.values())
    for place, (title, one) in enumerate(landscapes.items()):
        panel = figure.add_subplot(1, len(landscapes), place + 1, projection="3d")
        up, aside = (grid.numpy() for grid in torch.meshgrid(one.steps, one.steps, indexing="ij"))
        panel.plot_surface(up, aside, one.loss.numpy(), cmap="viridis", vmin=lowest, vmax=highest, linewidth=0)
        panel.set_zlim(lowest, highest)
        panel.set_title(title, fontsize=11, color=INK)
        panel.set_xlabel("to the worst found", fontsize=8, color=MUTED)
        panel.set_ylabel("at random, radii", fontsize=8, color=MUTED)
        panel.set_zlabel("mean training loss", fontsize=8, color=MUTED)
    return figure
