"""Figures as the papers print them, for networks that were trained by their methods."""

from __future__ import annotations

from dataclasses import dataclass

SMALL, LARGE = "small models", "large models"
PURE, NATURAL, HALF, CROWN_IBP = "Pure-IBP", "Natural-IBP, to 0", "Natural-IBP, to 0.5", "CROWN-IBP"


@dataclass(frozen=True)
class Family:
    """Zhang et al. 2020 (CROWN-IBP), Table 2: errors in percent of the networks with the best, median and worst verified error.

    Verified by IBP, weights of the epoch that is best on the test set.
    """

    verified: tuple[float, float, float]
    clean: tuple[float, float, float]


CROWN_IBP_2 = {
    ("mnist", 0.1, SMALL, PURE): Family((4.79, 5.74, 7.32), (1.48, 1.59, 2.5)),
    ("mnist", 0.1, SMALL, NATURAL): Family((4.87, 5.72, 7.24), (1.51, 1.34, 2.46)),
    ("mnist", 0.1, SMALL, HALF): Family((5.24, 5.95, 7.36), (1.41, 1.88, 1.87)),
    ("mnist", 0.1, SMALL, CROWN_IBP): Family((4.21, 5.18, 6.8), (1.41, 1.83, 2.58)),
    ("mnist", 0.1, LARGE, PURE): Family((5.9, 6.25, 7.82), (1.14, 1.12, 1.23)),
    ("mnist", 0.1, LARGE, NATURAL): Family((5.77, 6.3, 7.5), (1.21, 1.13, 1.34)),
    ("mnist", 0.1, LARGE, HALF): Family((6.05, 6.4, 7.7), (1.19, 1.33, 1.24)),
    ("mnist", 0.1, LARGE, CROWN_IBP): Family((5.22, 5.63, 6.34), (1.19, 1.05, 1.03)),
    ("mnist", 0.2, SMALL, PURE): Family((6.9, 8.24, 12.67), (1.93, 2.76, 4.14)),
    ("mnist", 0.2, SMALL, NATURAL): Family((6.84, 8.16, 12.92), (2.01, 2.56, 3.93)),
    ("mnist", 0.2, SMALL, HALF): Family((7.31, 8.71, 13.54), (1.62, 2.36, 3.22)),
    ("mnist", 0.2, SMALL, CROWN_IBP): Family((6.11, 7.29, 11.97), (1.93, 2.3, 3.86)),
    ("mnist", 0.2, LARGE, PURE): Family((7.56, 8.6, 9.8), (1.96, 2.19, 1.39)),
    ("mnist", 0.2, LARGE, NATURAL): Family((8.26, 8.72, 9.84), (1.45, 1.73, 1.31)),
    ("mnist", 0.2, LARGE, HALF): Family((8.42, 8.9, 10.09), (1.76, 1.42, 1.53)),
    ("mnist", 0.2, LARGE, CROWN_IBP): Family((6.06, 6.42, 7.64), (1.09, 1.33, 1.36)),
    ("mnist", 0.3, SMALL, PURE): Family((10.54, 12.02, 20.47), (2.78, 3.31, 6.07)),
    ("mnist", 0.3, SMALL, NATURAL): Family((9.96, 12.09, 21.0), (2.7, 3.48, 6.68)),
    ("mnist", 0.3, SMALL, HALF): Family((10.37, 12.78, 21.99), (2.11, 3.44, 5.19)),
    ("mnist", 0.3, SMALL, CROWN_IBP): Family((8.87, 11.29, 16.83), (2.43, 3.62, 7.26)),
    ("mnist", 0.3, LARGE, PURE): Family((10.43, 10.83, 11.99), (2.01, 2.38, 3.29)),
    ("mnist", 0.3, LARGE, NATURAL): Family((10.74, 11.73, 12.16), (2.17, 2.46, 1.6)),
    ("mnist", 0.3, LARGE, HALF): Family((11.23, 11.71, 12.4), (1.72, 2.09, 1.63)),
    ("mnist", 0.3, LARGE, CROWN_IBP): Family((7.46, 8.47, 8.57), (1.48, 1.52, 1.99)),
    ("mnist", 0.4, SMALL, PURE): Family((16.72, 18.89, 37.42), (4.2, 5.4, 9.63)),
    ("mnist", 0.4, SMALL, NATURAL): Family((16.1, 18.75, 35.3), (3.8, 4.93, 11.32)),
    ("mnist", 0.4, SMALL, HALF): Family((16.54, 19.14, 35.42), (3.4, 3.65, 7.54)),
    ("mnist", 0.4, SMALL, CROWN_IBP): Family((15.38, 18.57, 24.56), (3.61, 4.83, 8.46)),
    ("mnist", 0.4, LARGE, PURE): Family((15.17, 16.54, 18.98), (2.83, 3.79, 4.91)),
    ("mnist", 0.4, LARGE, NATURAL): Family((15.63, 16.06, 17.11), (2.93, 3.4, 3.75)),
    ("mnist", 0.4, LARGE, HALF): Family((15.74, 16.42, 17.98), (2.35, 2.31, 3.15)),
    ("mnist", 0.4, LARGE, CROWN_IBP): Family((12.96, 13.43, 14.25), (2.76, 2.85, 3.36)),
    ("fashion-mnist", 0.1, SMALL, PURE): Family((22.91, 23.92, 25.70), (16.14, 16.23, 18.66)),
    ("fashion-mnist", 0.1, SMALL, NATURAL): Family((22.34, 23.72, 25.43), (15.10, 16.22, 17.65)),
    ("fashion-mnist", 0.1, SMALL, HALF): Family((23.44, 24.62, 26.21), (13.20, 14.58, 15.02)),
    ("fashion-mnist", 0.1, SMALL, CROWN_IBP): Family((22.00, 23.43, 25.87), (15.11, 16.44, 18.08)),
    ("fashion-mnist", 0.1, LARGE, PURE): Family((22.37, 23.01, 23.73), (15.57, 15.43, 15.25)),
    ("fashion-mnist", 0.1, LARGE, NATURAL): Family((22.07, 23.74, 25.56), (14.82, 13.95, 15.31)),
    ("fashion-mnist", 0.1, LARGE, HALF): Family((23.87, 25.47, 27.19), (12.72, 13.62, 13.07)),
    ("fashion-mnist", 0.1, LARGE, CROWN_IBP): Family((21.27, 21.71, 22.43), (14.19, 14.70, 15.41)),
    ("cifar10", 2 / 255, SMALL, PURE): Family((54.69, 57.84, 60.58), (40.59, 45.51, 51.38)),
    ("cifar10", 2 / 255, SMALL, NATURAL): Family((54.56, 58.42, 60.69), (40.32, 47.42, 50.73)),
    ("cifar10", 2 / 255, SMALL, HALF): Family((56.89, 60.66, 63.58), (34.28, 39.28, 48.03)),
    ("cifar10", 2 / 255, SMALL, CROWN_IBP): Family((52.46, 57.55, 60.67), (39.11, 46.76, 50.86)),
    ("cifar10", 2 / 255, LARGE, PURE): Family((55.47, 56.41, 58.54), (41.59, 44.33, 46.54)),
    ("cifar10", 2 / 255, LARGE, NATURAL): Family((55.51, 56.74, 57.85), (42.41, 43.71, 44.74)),
    ("cifar10", 2 / 255, LARGE, HALF): Family((57.05, 59.7, 60.25), (34.77, 35.8, 38.95)),
    ("cifar10", 2 / 255, LARGE, CROWN_IBP): Family((52.52, 53.9, 56.05), (39.34, 40.07, 43.57)),
    ("cifar10", 8 / 255, SMALL, PURE): Family((72.07, 73.34, 73.88), (61.11, 61.01, 64.0)),
    ("cifar10", 8 / 255, SMALL, NATURAL): Family((72.42, 72.57, 73.49), (62.26, 60.98, 63.5)),
    ("cifar10", 8 / 255, SMALL, HALF): Family((73.88, 75.16, 76.93), (55.66, 52.53, 53.79)),
    ("cifar10", 8 / 255, SMALL, CROWN_IBP): Family((71.28, 72.15, 73.66), (59.07, 59.18, 63.17)),
    ("cifar10", 8 / 255, LARGE, PURE): Family((72.75, 73.23, 73.82), (59.23, 65.96, 66.35)),
    ("cifar10", 8 / 255, LARGE, NATURAL): Family((72.18, 72.83, 74.38), (62.54, 59.6, 61.99)),
    ("cifar10", 8 / 255, LARGE, HALF): Family((74.84, 75.59, 77.93), (51.71, 54.41, 54.12)),
    ("cifar10", 8 / 255, LARGE, CROWN_IBP): Family((70.79, 71.17, 72.29), (57.82, 58.68, 59.73)),
}
"""By data, radius, family of networks (A to J, K to T) and method."""


@dataclass(frozen=True)
class Shares:
    """Shares in percent without perturbation, under attack, and verified: accuracies or errors, as the paper prints them."""

    clean: float
    attacked: float
    verified: float


BCP_2 = {
    ("mnist", "4C3F", "CAP"): Shares(88.39, 62.25, 43.95), ("mnist", "4C3F", "LMT"): Shares(86.48, 53.56, 40.55),
    ("mnist", "4C3F", "BCP"): Shares(92.41, 64.70, 47.95),
    ("cifar10", "4C3F", "CAP"): Shares(60.14, 55.67, 50.29), ("cifar10", "4C3F", "LMT"): Shares(56.49, 49.83, 37.20),
    ("cifar10", "4C3F", "IBP"): Shares(34.50, 31.79, 24.39), ("cifar10", "4C3F", "BCP"): Shares(63.88, 58.75, 49.58),
    ("cifar10", "6C2F", "CAP"): Shares(60.10, 56.20, 50.87), ("cifar10", "6C2F", "LMT"): Shares(63.05, 58.32, 38.11),
    ("cifar10", "6C2F", "IBP"): Shares(32.96, 31.08, 23.42), ("cifar10", "6C2F", "BCP"): Shares(65.72, 60.78, 51.30),
    ("cifar10", "WRN", "CAP"): Shares(60.70, 56.77, 51.63), ("cifar10", "WRN", "LMT"): Shares(61.33, 56.39, 33.35),
    ("cifar10", "WRN", "BCP"): Shares(64.79, 59.16, 50.33),
}
"""Lee et al. 2020 (BCP), Table 2, by data, network and method: accuracies, l_2 balls of 1.58 (MNIST) and 36/255 (CIFAR-10)."""
FUSED, IBP = "loss fusion", "IBP"
LIRPA_2 = {
    ("cifar10", "CNN-7+BN", IBP): Shares(57.95, 67.10, 69.56), ("cifar10", "CNN-7+BN", FUSED): Shares(53.71, 64.31, 66.62),
    ("cifar10", "DenseNet", IBP): Shares(57.21, 67.75, 69.59), ("cifar10", "DenseNet", FUSED): Shares(56.03, 65.09, 67.57),
    ("cifar10", "WideResNet", IBP): Shares(58.07, 67.23, 70.04), ("cifar10", "WideResNet", FUSED): Shares(53.89, 64.42, 67.77),
    ("cifar10", "ResNeXt", IBP): Shares(56.32, 67.55, 70.41), ("cifar10", "ResNeXt", FUSED): Shares(53.85, 64.16, 68.25),
}
"""Xu et al. 2020 (auto_LiRPA), Table 2, by data, network and method: errors at 8/255."""


@dataclass(frozen=True)
class Cost:
    """Xu et al. 2020 (auto_LiRPA), Table 3: seconds of an epoch and gigabytes; None: out of memory."""

    natural: tuple[float, float]
    ibp: tuple[float, float]
    unfused: tuple[float, float] | None
    fused: tuple[float, float]


LIRPA_3 = {
    "cnn7-bn-cifar": Cost((11.89, 4.42), (22.23, 7.06), (56.05, 20.52), (33.40, 10.34)),
    "densenet-cifar": Cost((22.07, 6.58), (54.40, 16.78), None, (90.79, 27.50)),
    "wideresnet-cifar": Cost((19.39, 7.18), (43.65, 13.50), None, (74.78, 21.98)),
    "resnext-cifar": Cost((14.78, 4.74), (32.44, 11.34), (132.70, 43.68), (55.84, 18.58)),
    "cnn7-bn-tiny": Cost((56.70, 4.22), (112.09, 7.12), None, (163.29, 10.57)),
    "densenet-tiny": Cost((135.17, 8.55), (318.77, 20.55), None, (513.96, 34.81)),
    "wideresnet-tiny": Cost((133.11, 10.91), (407.74, 24.05), None, (635.50, 39.08)),
    "resnext-tiny": Cost((92.63, 4.31), (191.34, 7.05), None, (337.83, 11.66)),
}
"""By network, on four GPUs with batches of 256 (CIFAR-10) and 100 (Tiny-ImageNet)."""
