import math

import pytest
import torch

import boundlab as bl


def boxes():
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(3, 2, 4, generator=generator)
    width = torch.rand(3, 2, 4, generator=generator)
    width[0, 0, 0] = 0
    return bl.Box(lower, lower + width)


def test_both_kinds_follow_the_protocol_and_say_whether_coordinates_are_independent():
    center = torch.zeros(1, 2)
    known = {boxes(): True, bl.LpBall(center, 0.1): True, bl.LpBall(center, 0.1, 2): False, bl.LpBall(center, 0.1, 1): False}
    for region, independent in known.items():
        assert isinstance(region, bl.PerturbationSet)
        assert region.independent is independent


def test_samples_of_a_box_reach_inside_faces_and_corners():
    box = boxes()
    points = box.sample(600, torch.Generator().manual_seed(1))
    low, high = points == box.lower, points == box.upper
    assert (points >= box.lower).all() and (points <= box.upper).all()
    ends = (low | high).float().flatten(2).mean(2)
    assert (ends == 1).any() and (ends < 0.3).any() and ((ends > 0.3) & (ends < 0.9)).any()
    assert low.any(0).all() and high.any(0).all()


def test_projection_onto_a_box_is_exact():
    box = boxes()
    points = torch.randn(20, 3, 2, 4, generator=torch.Generator().manual_seed(2)) * 3
    near = box.project(points)
    assert (near >= box.lower).all() and (near <= box.upper).all()
    assert torch.equal(box.project(near), near)


def test_taking_problems():
    box = boxes()
    assert torch.equal(box.take(torch.tensor([2, 0, 2])).lower, box.lower[[2, 0, 2]])


def test_an_inf_ball_is_its_box():
    center = torch.rand(2, 5, generator=torch.Generator().manual_seed(3))
    ball = bl.LpBall(center, 0.25, math.inf, (0.0, 1.0))
    box = bl.Box((center - 0.25).clamp(min=0), (center + 0.25).clamp(max=1))
    assert torch.equal(ball.box().lower, box.lower) and torch.equal(ball.box().upper, box.upper)
    points = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(4))
    assert torch.equal(ball.project(points), box.project(points))
    assert torch.equal(ball.ascent(points), box.ascent(points))


@pytest.mark.parametrize("upper", [-1.0, math.nan])
def test_empty_boxes_are_refused(upper):
    with pytest.raises(bl.SpecError, match="empty"):
        bl.Box(torch.zeros(1, 2), torch.full((1, 2), upper))
