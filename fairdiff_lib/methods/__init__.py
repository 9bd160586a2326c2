"""What a training method does to a batch; importing the room registers every method's class."""

from fairdiff_lib.methods import controls, perturbation, rivals

__all__ = ["controls", "perturbation", "rivals"]
