"""Derivatives along one direction of each parameter, by autograd and by differences."""

import torch


def along_directions(module, model, loss, step=1e-6):
    """Name, gradient * direction (entry by entry) and central difference of `loss(model)` for each parameter of `module`.

    `loss` of the model itself must have been sent backward; directions are drawn at random, the same for equal modules.
    """
    generator = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        moved = (parameter.detach() + sign * step * direction for sign in (1, -1))
        after, before = (float(loss(model.with_params({name: value})).detach()) for value in moved)
        yield name, parameter.grad * direction, (after - before) / (2 * step)
