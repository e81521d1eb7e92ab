"""auto_LiRPA's side, if it is importable; it is never a dependency, and nothing else here imports it.

Its method names and calls follow its documentation (Xu et al. 2020). Only lower bounds are asked for, as on our side.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.cases import NATURAL, Job
from benchmarks.networks import Loaded
from benchmarks.ours import OPTIMISED, RATE

METHODS: Mapping[str, str] = {
    "IBP": "ibp",
    "CROWN-IBP": "crown-ibp",
    "CROWN": "crown",
    "Forward": "forward",
    "Forward+Backward": "forward+backward",
    "Optimised": "crown-optimized",
}
OPSETS = range(7, 21)
STEPS = (NATURAL, "IBP, clean pass", "CROWN-IBP, a row a class, clean pass", "CROWN-IBP, fused, clean pass")


def installed() -> bool:
    """Whether there is a package of that name; it is not imported."""
    return importlib.util.find_spec("auto_LiRPA") is not None


def register_symbolics() -> str:
    """Import torch's TorchScript opset symbolics where torch no longer does, and say so.

    From torch 2.9 on they are imported by nobody, and the peer's capture then loses operators without a word.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9):
        return ""
    for opset in OPSETS:
        importlib.import_module(f"torch.onnx._internal.torchscript_exporter.symbolic_opset{opset}")
    return f"torch {torch.__version__}: opset symbolics {OPSETS[0]} to {OPSETS[-1]} imported by hand for its capture"


def describe() -> tuple[str, str]:
    """The peer's version, and a note on what was done to make it work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        note = register_symbolics()
        return importlib.import_module("auto_LiRPA").__version__, note


def prepare(job: Job) -> Callable[[], Tensor]:
    """The call that is measured; the peer's module is built before it."""
    register_symbolics()
    peer, loaded = importlib.import_module("auto_LiRPA"), job.network.load()
    loaded.module.to(job.device)
    if job.training:
        return step_of(job, loaded, peer)
    x, rows = loaded.x[:job.batch].to(job.device), loaded.rows[:job.batch].to(job.device)
    network = peer.BoundedModule(loaded.module, torch.zeros_like(loaded.x[:1]).to(job.device), device=job.device)

    def bounded() -> Any:
        return peer.BoundedTensor(x, peer.PerturbationLpNorm(norm=float("inf"), eps=loaded.eps))

    if job.work == "Optimised":  # as many steps, of the same size, as ours
        network.set_bound_opts({"optimize_bound_args": {"iteration": OPTIMISED.steps, "lr_alpha": OPTIMISED.rate}})
        return lambda: optimised(network, bounded(), rows)

    def bounds() -> Tensor:
        with torch.no_grad():
            return network.compute_bounds(x=(bounded(),), C=rows, method=METHODS[job.work], bound_upper=False)[0]

    return bounds


def optimised(network: Any, x: Any, rows: Tensor) -> Tensor:
    """CROWN's inner bounds once, then slopes of the output's rows (without `interm_bounds` it optimises inner ones too)."""
    with torch.no_grad():
        network.compute_bounds(x=(x,), C=rows, method="crown", bound_upper=False)
        inner = {node.name: (node.lower.detach().clone(), node.upper.detach().clone())
                 for node in network.get_enabled_opt_act() for node in node.inputs if node.lower is not None}
    lower: Tensor = network.compute_bounds(x=(x,), C=rows, method="crown-optimized", bound_upper=False, interm_bounds=inner)[0]
    return lower.detach()


def step_of(job: Job, loaded: Loaded, peer: Any) -> Callable[[], Tensor]:
    """One optimiser step on a loss in training mode; the clean pass sets the batch statistics that its bounds use."""
    x, labels = loaded.x[:job.batch].to(job.device), loaded.labels[:job.batch].to(job.device)
    optimizer = torch.optim.Adam(loaded.module.parameters(), lr=RATE)
    loss = loss_of(job, loaded, x, labels, peer)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def loss_of(job: Job, loaded: Loaded, x: Tensor, labels: Tensor, peer: Any) -> Callable[[], Tensor]:
    """The loss of a training step by name."""
    module: nn.Module = loaded.module.train()
    if job.work == NATURAL:
        return lambda: cross_entropy(module(x), labels)
    bounded = peer.BoundedTensor(x, peer.PerturbationLpNorm(norm=float("inf"), eps=loaded.eps))
    if job.work == "CROWN-IBP, fused, clean pass":
        fused = peer.BoundedModule(peer.CrossEntropyWrapper(module), (x, labels), bound_opts={"loss_fusion": True},
                                   device=job.device)

        exp = next(node for node in fused.nodes() if type(node).__name__ == "BoundExp")

        def fused_loss() -> Tensor:
            clean = fused(x, labels).log().mean() + exp.max_input.mean()
            upper: Tensor = fused.compute_bounds(x=(bounded, labels), method="crown-ibp", bound_lower=False)[1]
            return clean + (upper.log() + exp.max_input).mean()

        return fused_loss
    network = peer.BoundedModule(module, x, device=job.device)
    rows = loaded.rows[:job.batch].to(job.device)
    method = "ibp" if job.work.startswith("IBP") else "crown-ibp"

    def robust_loss() -> Tensor:
        clean = cross_entropy(network(x), labels)
        lower = network.compute_bounds(x=(bounded,), C=rows, method=method, bound_upper=False)[0]
        logits = torch.cat([lower.new_zeros(len(lower), 1), -lower], dim=1)
        return clean + cross_entropy(logits, torch.zeros_like(labels))

    return robust_loss
