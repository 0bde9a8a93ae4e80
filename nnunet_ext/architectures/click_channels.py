"""Clicks as channels of the image, for networks that were not made for prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_ext.common.errors import clicks_needed


class ClickChannels(nn.Module):
    """Hands a network the clicks on each foreground class as a channel behind those of the image.

    A channel is 0 where nobody clicked, and has a Gaussian of height 1 at a click on the foreground and of -1 at one on
    the background. In windows, patches and mirrored images the clicks are therefore where they belong.

    Args:
        network: takes `image_channels` + `classes` channels.
        image_channels: of the image alone.
        classes: foreground classes or regions.
        sigma: of the Gaussian, in pixels of the preprocessed image. The 10 pixels of DEXTR (Maninis et al., CVPR 2018),
            whose images are of 512 x 512 pixels, are nnU-Net's patches of ultrasound and CT in size.
    """

    def __init__(self, network: nn.Module, *, image_channels: int, classes: int, sigma: float = 10.0) -> None:
        super().__init__()
        self.network = network
        self.image_channels, self.classes, self.sigma = image_channels, classes, sigma

    @property
    def decoder(self) -> nn.Module:
        """The network's decoder, whose deep supervision nnU-Net switches."""
        return self.network.get_submodule("decoder")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of image and clicks (B, image_channels + classes, H, W).

        Raises:
            InputError: the clicks are missing.
        """
        if x.shape[1] == self.image_channels:
            raise clicks_needed()
        return self.network(x)

    def channels(self, xy: torch.Tensor, labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Draw clicks.

        Args:
            xy: (..., N, 2) in pixels, the centre of the first pixel being (0, 0).
            labels: (..., N), 1 for foreground, 0 for background and -1 for no click.
            size: (H, W).

        Returns:
            (..., H, W), the highest Gaussian of the foreground less that of the background.
        """
        across, down = (
            torch.exp(-((torch.arange(n, device=xy.device) - xy[..., axis, None]) ** 2) / (2 * self.sigma**2))
            for axis, n in ((0, size[1]), (1, size[0]))
        )
        drawn = xy.new_zeros(2, *xy.shape[:-2], *size)
        for i in range(xy.shape[-2]):  # one after the other: all at once would hold an image per click
            height = down[..., i, :, None] * across[..., i, None, :]
            for sign, image in zip((1, 0), drawn, strict=True):
                chosen = (labels[..., i] == sign)[..., None, None]
                torch.maximum(image, height * chosen, out=image)
        return drawn[0] - drawn[1]
