"""Example networks, the images to train them on, and settings to train them with.

Examples
--------
>>> from fastconv.examples import digits_cnn
>>> sum(parameter.size for parameter in digits_cnn().parameters())
25962
"""

from fastconv.examples.augment import (
    Compose,
    Cutout,
    Mixup,
    RandomAffine,
    RandomBrightness,
    RandomCrop,
    RandomFlip,
    RandomShift,
)
from fastconv.examples.data import (
    Dataset,
    load_cifar,
    load_data,
    load_digits,
    load_folder,
    load_idx,
    load_npz,
)
from fastconv.examples.folder import ImageFiles
from fastconv.examples.labels import stratified_split
from fastconv.examples.models import binary_cnn, digits_cnn, fashion_cnn, two_conv_cnn
from fastconv.examples.recipes import DIGITS_RECIPE, RECIPES, Recipe

__all__ = [
    "DIGITS_RECIPE",
    "RECIPES",
    "Compose",
    "Cutout",
    "Dataset",
    "ImageFiles",
    "Mixup",
    "RandomAffine",
    "RandomBrightness",
    "RandomCrop",
    "RandomFlip",
    "RandomShift",
    "Recipe",
    "binary_cnn",
    "digits_cnn",
    "fashion_cnn",
    "load_cifar",
    "load_data",
    "load_digits",
    "load_folder",
    "load_idx",
    "load_npz",
    "stratified_split",
    "two_conv_cnn",
]
