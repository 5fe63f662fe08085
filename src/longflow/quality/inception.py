"""Inception's features, where its network and weights are already on the machine: nothing is downloaded."""

import importlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from longflow.errors import UsageError
from longflow.quality.features import Extractor

PACKAGE = "torch_fidelity"
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class Inception(Extractor):
    """The 2048 pooled features of the Inception network of 2015, as torch-fidelity has it, for pictures in levels.

    Even so distances of some thousand rows are no FID, which is of 50,000.
    """

    kind = "inception"

    def __init__(self, shape: tuple[int, ...], levels: int, network: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.top = levels - 1
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        picture = (x * (255 / self.top)).round().clamp(0, 255).to(torch.uint8)
        return self.network(picture.expand(-1, 3, -1, -1))[0]

    @classmethod
    def at_hand(cls, shape: tuple[int, ...], levels: int | None) -> "Inception":
        """Return the network; raise UsageError for other data than pictures in levels, or saying what is missing."""
        if len(shape) != 3 or shape[0] not in (1, 3) or levels is None:
            raise UsageError(f"--extractor inception expects pictures of 1 or 3 channels in levels; {shape} came")
        if importlib.util.find_spec(PACKAGE) is None:
            raise UsageError("--extractor inception expects the package torch-fidelity, which is not installed")
        weights = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
        if not weights.is_file():
            raise UsageError(f"--extractor inception expects its weights at {weights}, and does not download them")
        made = importlib.import_module(f"{PACKAGE}.feature_extractor_inceptionv3")
        network = made.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
        return cls(shape, levels, network).eval()
