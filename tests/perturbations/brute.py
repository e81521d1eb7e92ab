"""Exhaustive search: every extreme point of a set of one problem, by plain loops, to hold exact minima against."""

import itertools

import torch


def altered(center, places, low, high):
    """`center` (*shape) with the flat coordinates `places` at every combination of ends, (2^places, *shape)."""
    flat, low, high = center.flatten(), low.flatten(), high.flatten()
    found = []
    for ends in itertools.product((low, high), repeat=len(places)):
        point = flat.clone()
        for place, end in zip(places, ends, strict=True):
            point[place] = end[place]
        found.append(point.reshape(center.shape))
    return torch.stack(found)


def partly(center, places, low, high):
    """The same for every subset of the places, so that an altered place may also stay as it is."""
    return torch.cat([altered(center, some, low, high) for count in range(len(places) + 1)
                      for some in itertools.combinations(places, count)])


def ends_of(region):
    """Low and high of a set's only problem as tensors (*shape)."""
    return tuple(torch.as_tensor(end).to(region.center).expand_as(region.center)[0] for end in (region.low, region.high))


def l0_points(region):
    """Extreme points of an l_0 ball of one problem, (points, *shape)."""
    center, (low, high) = region.center[0], ends_of(region)
    numbers = torch.arange(center.numel()).reshape(center.shape)
    cells = numbers.flatten(1).T.tolist() if region.pixels else [[place] for place in numbers.flatten().tolist()]
    k = int(torch.as_tensor(region.k).reshape(-1)[0])
    chosen = itertools.combinations(cells, min(k, len(cells)))
    return torch.cat([partly(center, [*itertools.chain(*some)], low, high) for some in chosen])


def patch_points(region):
    """Extreme points of patches on one image, (points, *shape)."""
    center, (low, high), (h, w) = region.center[0], ends_of(region), region.size
    numbers = torch.arange(center.numel()).reshape(center.shape)
    places = itertools.product(range(center.shape[1] - h + 1), range(center.shape[2] - w + 1))
    return torch.cat([partly(center, numbers[:, y:y + h, x:x + w].flatten().tolist(), low, high) for y, x in places])


def sentences(region):
    """Every sentence of a substitution of one problem, (sentences, positions, width)."""
    center, candidates = region.center[0], region.candidates[0]
    allowed = torch.ones(candidates.shape[:2], dtype=torch.bool) if region.allowed is None else region.allowed[0]
    lists = [candidates[place][allowed[place]] for place in range(len(center))]
    budget, found = int(torch.as_tensor(region.budget).reshape(-1)[0]), [center]
    for count in range(1, budget + 1):
        for places in itertools.combinations([place for place in range(len(center)) if len(lists[place])], count):
            for words in itertools.product(*(lists[place] for place in places)):
                point = center.clone()
                point[list(places)] = torch.stack(words)
                found.append(point)
    return torch.stack(found)


def minimum(points, rows):
    """The smallest value of each row (s, *shape) over the points, (s,)."""
    return (points.flatten(1) @ rows.flatten(1).T).amin(0)
