"""How alike the features of frames are: VBench's temporal consistency and VBench-I2V's conformity to an image.

Dimensions: N frame, D feature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

MAX_WEIGHT, MEAN_WEIGHT, MIN_WEIGHT = 0.4, 0.3, 0.3  # vbench 0.1.5, vbench2_beta_i2v/i2v_subject.py


def cosine(a_D: torch.Tensor, b_D: torch.Tensor) -> float:
    """max(0, cos), of features already normalised, as VBench computes it."""
    return max(0.0, float(functional.cosine_similarity(a_D, b_D, dim=-1)))


@dataclass
class Consistency:
    """Mean over frames n >= 1 of (cos(f_n, f_n-1) + cos(f_n, f_0)) / 2, cosines cut off at 0; keeps two frames'
    features.

    Source: vbench 0.1.5, subject_consistency.py, background_consistency.py.
    **Deviations:** none.
    """

    first_D: torch.Tensor | None = None
    last_D: torch.Tensor | None = None
    similarities: list[float] = field(default_factory=list)

    def add(self, features_ND: torch.Tensor) -> None:
        """The features of the next frames, of any length."""
        for feature_D in functional.normalize(features_ND.float(), dim=-1, p=2):
            if self.first_D is None or self.last_D is None:
                self.first_D = feature_D
            else:
                self.similarities.append((cosine(self.last_D, feature_D) + cosine(self.first_D, feature_D)) / 2)
            self.last_D = feature_D

    def value(self) -> float:
        return sum(self.similarities) / len(self.similarities)


@dataclass
class Conformity:
    """0.4 max cos(image, f_n) + 0.3 mean cos(f_n-1, f_n) + 0.3 min cos(f_n-1, f_n), cosines cut off at 0; keeps one
    frame's features.

    Source: vbench 0.1.5, vbench2_beta_i2v/i2v_subject.py and i2v_background.py.
    **Deviations:** none.
    """

    image_D: torch.Tensor
    last_D: torch.Tensor | None = None
    to_image: list[float] = field(default_factory=list)
    neighbours: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image_D = functional.normalize(self.image_D.float(), dim=-1, p=2)

    def add(self, features_ND: torch.Tensor) -> None:
        """The features of the next frames, of any length."""
        for feature_D in functional.normalize(features_ND.float(), dim=-1, p=2):
            self.to_image.append(cosine(self.image_D, feature_D))
            if self.last_D is not None:
                self.neighbours.append(cosine(self.last_D, feature_D))
            self.last_D = feature_D

    def value(self) -> float:
        mean = sum(self.neighbours) / len(self.neighbours)
        return MAX_WEIGHT * max(self.to_image) + MEAN_WEIGHT * mean + MIN_WEIGHT * min(self.neighbours)
