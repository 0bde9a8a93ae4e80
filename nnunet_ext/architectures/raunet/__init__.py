"""RA-U-Net (Du & Wang 2025) and the networks it is compared with."""

from nnunet_ext.architectures.raunet.unet import UNet, UNet3D

__all__ = ["UNet", "UNet3D"]
