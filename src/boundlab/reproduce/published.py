"""Figures as the papers print them, for the networks whose weights were published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Errors:
    """Salman et al. 2019, Table 1: errors in percent on MNIST's 10,000 test images."""

    test: float
    attacked: float
    milp_lower: float
    milp_upper: float
    everywhere: float
    greedy: float


BARRIER_1 = {
    ("ADV_MLP_B_0.03", 0.03): Errors(1.53, 4.17, 4.18, 5.78, 10.04, 13.40),
    ("NOR_MLP_B", 0.02): Errors(2.05, 10.06, 10.16, 13.48, 26.41, 35.11),
    ("NOR_MLP_B", 0.03): Errors(2.05, 20.37, 20.43, 48.67, 65.70, 75.85),
    ("LPD_MLP_B_0.1", 0.1): Errors(4.09, 13.39, 14.45, 14.45, 17.24, 18.32),
}
"""By network and radius."""


@dataclass(frozen=True)
class Distortions:
    """Salman et al. 2019, Table 2: mean certified radii, and PGD's upper bound, over ten test images.

    Radii by linear programs lie on a grid of 5 % above the greedy ones, rounded down (inferred from the ratios in the table).
    """

    greedy: float
    last: float
    everywhere: float
    attacked: float


BARRIER_2 = {
    "mnist_MLP_2_100_NOR": Distortions(0.01419, 0.01511, 0.01583, 0.02814),
    "mnist_cnn_small_NOR": Distortions(0.01498, 0.01629, 0.01887, 0.05270),
    "mnist_cnn_small_LPD": Distortions(0.15317, 0.16083, 0.16083, 0.22672),
}
"""By network."""


@dataclass(frozen=True)
class Gains:
    """Lyu et al. 2020 (FROWN), App. A.9: mean radii by CROWN (parallel slopes), FROWN and LP, None where the table has none.

    The published weights are not those of the table, so gains in percent compare, radii do not.
    """

    crown: float
    frown: float
    linear: float | None = None

    @property
    def percent(self) -> float:
        """By how much FROWN's radius is larger."""
        return 100 * (self.frown / self.crown - 1)


FROWN_3 = {
    ("net_3_100_relu", 1.0): Gains(4.8414, 5.2071, 5.2775), ("net_3_100_relu", 2.0): Gains(0.6966, 0.7207, 0.6901),
    ("net_3_100_relu", float("inf")): Gains(0.0335, 0.0337, 0.0333),
    ("net_3_100_sigmoid", float("inf")): Gains(0.0213, 0.0234, 0.0231),
}
"""By network and norm; the issue's percentages for sigmoid and p = 1, 2 are 16 and 12."""


@dataclass(frozen=True)
class Verified:
    """Xu et al. 2020 (auto_LiRPA), Table 5: accuracy on SST-2's test sentences, and verified at budgets 1 to 6, in percent.

    Networks that are trained for a method are verified by it.
    """

    clean: float
    by_budget: tuple[float, ...]


LIRPA_5 = {
    ("LSTM", "natural", "IBP"): Verified(84.9, (0.6,) * 6), ("LSTM", "budget 6", "IBP"): Verified(79.8, (76.2,) * 6),
    ("LSTM", "budget 6", "IBP+Backward"): Verified(79.4, (76.6,) * 6),
    ("Transformer", "natural", "IBP"): Verified(82.0, (0.6,) * 6),
    ("LSTM", "natural", "Forward+Backward"): Verified(84.9, (0.0,) * 6),
    ("Transformer", "natural", "Forward+Backward"): Verified(82.0, (65.0, 51.2, 44.5, 41.3, 39.2, 38.7)),
    ("Transformer", "budget 6", "IBP"): Verified(78.4, (76.6,) * 6),
    ("Transformer", "budget 6", "IBP+Backward"): Verified(78.5, (77.4,) * 6),
}
"""By network, training and method; means of five runs for budget 6."""
