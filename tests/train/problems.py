"""Small classification problems that the tests of training share."""

import torch
from torch import nn

from boundlab.data.examples import Examples


def clouds(count=120, classes=3, seed=0):
    """Images of 6 x 6 pixels in [0, 1]: a bright patch whose place tells the class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    x = 0.3 * torch.rand(count, 1, 6, 6, generator=generator)
    for place, label in enumerate(labels.tolist()):
        x[place, 0, 2 * label:2 * label + 2, 1:5] += 0.6
    return Examples(x, labels)


def network(seed=0, norm=False, classes=3):
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), *norms, nn.ReLU(), nn.Flatten(), nn.Linear(36, 16), nn.ReLU(),
                         nn.Linear(16, classes))
