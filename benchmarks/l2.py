"""Training for l_2 balls: `python -m benchmarks.l2` for seconds of a step by method, on random images of MNIST's size.

`python -m benchmarks.l2 NETWORK.onnx MNIST-FOLDER` for the tightness of BCP's worst logits on a trained network: for each test
image the mean translation of a logit over all pairs of classes, as a share of what the ball alone gives (Lee et al. 2020,
Fig. 3), and what its box is worth beside its ball in each layer.

Methods take turns at one step each, so that what else the machine does falls on all alike; printed is the best round.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch

import boundlab as bl
from boundlab import zoo
from boundlab.bounds.lipschitz import caught
from boundlab.bounds.problem import problem_of
from boundlab.maps import spectral_bound
from boundlab.reproduce.outer import translations
from boundlab.table import aligned
from boundlab.train.step import objective

NETWORK, BATCH, ROUNDS, EPS, IMAGES = "cnn-small-mnist", 50, 5, 1.58, 500
LIPSCHITZ = "aol-small-mnist"
METHODS: Mapping[str, bl.TrainingMethod] = {
    "natural": bl.Natural(), "IBP": bl.RobustIBP(), "LMT": bl.RobustLMT((0.0, 0.0)), "GloRo": bl.GloRo(),
    "BCP": bl.RobustBCP((0.0, 0.0)), "BCP and natural": bl.RobustBCP((0.5, 0.5)), "CAP, 50 projections": bl.CAP(50),
}
OWN: Mapping[str, bl.TrainingMethod] = {"natural, AOL": bl.Natural(), "margins, AOL": bl.ByMargin()}
"""Of a network that is 1-Lipschitz as built."""


def step(model: bl.Model, batch: tuple[torch.Tensor, torch.Tensor], method: bl.TrainingMethod) -> float:
    """Processor seconds of one loss and its gradient, at half the radius."""
    for parameter in model.params.values():
        parameter.grad = None
    started = time.process_time()
    objective(bl.Batch(model, *batch, bl.Threat(EPS, 2.0), 0.5), method, bl.TrainingPlan(), torch.Generator()).backward()
    return time.process_time() - started


def seconds() -> dict[str, float]:
    """The best seconds of a step by method."""
    torch.manual_seed(0)
    batch = torch.rand(BATCH, *zoo.record(NETWORK).shape), torch.randint(10, (BATCH,))
    plain, own = (bl.capture(zoo.build(name).eval(), batch[0][:2]) for name in (NETWORK, LIPSCHITZ))
    turns = [(plain, METHODS), (own, OWN)]
    rounds = [{name: step(model, batch, method) for model, methods in turns for name, method in methods.items()}
              for _ in range(ROUNDS)]
    return {name: min(one[name] for one in rounds) for name in rounds[0]}


def tightness(model: bl.Model, x: torch.Tensor) -> torch.Tensor:
    """BCP's mean translation over LMT's, (b,)."""
    return translations(model, x, EPS, bl.BCP()) / translations(model, x, EPS, bl.LMT())


def before_relus(model: bl.Model, x: torch.Tensor) -> list[list[str]]:
    """What BCP's box is worth beside its ball where each ReLU reads: its mean half-width over the ball's radius, and the share
    of neurons that are never active on the set. Only the latter, and half-widths near 1 / sqrt(neurons), cut a ball off."""
    with torch.no_grad():
        env, balls = caught(problem_of(model, bl.LpBall(x, EPS, 2.0)), spectral_bound, boxes=True)
    rows = []
    for node in model.graph:
        if node.op == "relu":
            box, ball = env[node.args[0]], balls[node.args[0]]
            assert isinstance(box, bl.Interval)
            share = float((box.radius.flatten(1) / ball.radius[:, None]).mean())
            never = float((box.upper <= 0).double().mean())
            rows.append([str(list(node.shape)), f"{share:.2f}", f"{math.prod(node.shape) ** -0.5:.3f}", f"{100 * never:.0f} %"])
    return rows


def main(arguments: list[str]) -> None:
    """Print one of the two."""
    torch.set_num_threads(1)
    if arguments:
        model = bl.load_onnx(Path(arguments[0])).detached()
        x = bl.read_examples(Path(arguments[1]), bl.Part.TEST).take(range(IMAGES)).labelled()[0]
        shares = tightness(model, x)
        least, low, high, most = torch.quantile(shares, torch.tensor([0.0, 0.25, 0.75, 1.0])).tolist()
        print(f"{IMAGES} images: {float(shares.mean()):.3f} on average, {least:.3f} to {most:.3f}; half of them {low:.3f} to "
              f"{high:.3f}")
        head = ["ReLU", "box / ball", "1 / sqrt(n)", "never active"]
        print(aligned([head, *before_relus(model, x)], [False, True, True, True]))
        return
    found = seconds()
    rows = [[name, f"{1000 * value:.0f}", f"{value / found['natural']:.1f}", f"{value / found['BCP']:.2f}"]
            for name, value in found.items()]
    print(aligned([["method", "ms", "times natural", "times BCP"], *rows], [False, True, True, True]))


if __name__ == "__main__":
    main(sys.argv[1:])
