"""Rows of a specification that all problems share, through slices of which some problems' parts differ."""

import torch
from torch import nn

import boundlab as bl


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        a, b = torch.tanh(x).split(2, dim=1)
        return self.last(torch.cat([torch.relu(b), a], 1))


def test_a_batch_of_boxes_and_a_shared_specification_give_what_each_box_gives_alone():
    torch.manual_seed(0)
    model = bl.capture(Halves(), torch.zeros(2, 4)).detached()
    low = torch.tensor([[-1.0] * 4, [-0.5] * 4])
    spec = bl.at_least(torch.eye(2)[None], torch.zeros(1, 2))
    for method in (bl.CROWN(), bl.CROWN(bl.IBP())):
        both = bl.bound(model, bl.Box(low, low + 1), method=method, spec=spec).lower
        alone = [bl.bound(model, bl.Box(one[None], one[None] + 1), method=method, spec=spec).lower for one in low]
        torch.testing.assert_close(both, torch.cat(alone))
