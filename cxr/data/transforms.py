"""From an 8-bit RGB image to the array a network was trained on.

The preprocessing belongs to the weights: it is one small value object, stored as JSON inside every
checkpoint that this project writes (`cxr.weights`).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from PIL import Image

from cxr.errors import InputError

_MOST_ELONGATED = 10                             # longer side over shorter side


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop, scale, normalise, in this order.

    Args:
        resize: an int is the length of the shorter side (aspect ratio kept), a pair is (height, width).
        crop: side of the centre crop, or None for no crop.
        scale: the 8-bit values are divided by it: 255 gives 0-1, 1 leaves 0-255.
        mean: per RGB channel, in the scaled range.
        std: likewise.
        antialias: True resizes as Pillow does (every source pixel counts), False as OpenCV's bilinear
            does (four neighbours, so shrinking 1024 to 256 skips most pixels). Scores differ visibly:
            always use what the weights were trained or published with.
    """
    resize: int | tuple[int, int] = 256
    crop: int | None = 224
    scale: float = 255.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    antialias: bool = True

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, height, width) of what the network gets."""
        if self.crop:
            return (3, self.crop, self.crop)
        height, width = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        return (3, height, width)

    def view(self, image: np.ndarray) -> np.ndarray:
        """The part of `image` (H, W, 3) uint8 that the network sees, still as a picture (h, w, 3) uint8.

        Raises:
            InputError: the image is too elongated, or the crop does not fit into the resized image.
        """
        image = resize(image, self.resize, self.antialias)
        return centre_crop(image, self.crop) if self.crop else image

    def to_input(self, view: np.ndarray) -> np.ndarray:
        """Scale and normalise a view, (..., h, w, 3) uint8, to (..., 3, h, w) float32."""
        scaled = np.asarray(view, "float32") / np.float32(self.scale)
        normalised = (scaled - np.asarray(self.mean, "float32")) / np.asarray(self.std, "float32")
        return np.ascontiguousarray(np.moveaxis(normalised, -1, -3))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """What the network gets for an image.

        Args:
            image: (H, W, 3) uint8; also a Pillow image, or 0-255 as float.

        Returns:
            (3, h, w) float32.

        Raises:
            InputError: as `view`.
        """
        return self.to_input(self.view(np.asarray(image, np.uint8)))

    def __str__(self) -> str:
        size = (f"shorter side to {self.resize}" if isinstance(self.resize, int) else
                f"to {self.resize[0]} x {self.resize[1]}")
        crop = f", centre crop {self.crop}" if self.crop else ""
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return (f"{size} ({'antialiased' if self.antialias else 'four neighbours'}){crop}, divided by {self.scale:g}, "
                f"mean {mean}, std {std}")

    def to_dict(self) -> dict:
        """The fields by name, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Preprocess:
        """Inverse of `to_dict`, also after a trip through JSON.

        Raises:
            InputError: there are foreign fields.
        """
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value
                          for name, value in values.items()})
        except TypeError:
            raise InputError(f"unknown preprocessing {values}: the checkpoint was written by a newer version, "
                             "update this project.") from None


@dataclass(frozen=True)
class Augment:
    """Random rotation, zoom, crop and horizontal flip for training, after the resize of `preprocess`.

    Crop and flip are published for CheXNet, rotation and flip for the pneumonia ResNet. The draw comes from the
    generator that the caller passes, so that a sample's augmentation can depend on (seed, epoch, index) alone and
    survives workers and restarts.

    Args:
        preprocess: of the network.
        flip: probability of a horizontal flip, 0-1.
        rotate: by up to that many degrees either way, with black corners and the nearest pixel as torchvision's
            `RandomRotation` has it.
        zoom: enlarges a part of the image whose sides are shorter by up to that share, 0-1.
    """
    preprocess: Preprocess
    flip: float = 0.5
    rotate: float = 0.0
    zoom: float = 0.0

    takes_rng = True                             # tells `cxr.data.dataset.XrayDataset` to pass one

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 to (3, h, w) float32, drawn from `rng`.

        Raises:
            InputError: the image is too elongated, or the crop does not fit into the resized image.
        """
        image = resize(np.asarray(image, np.uint8), self.preprocess.resize, self.preprocess.antialias)
        if self.rotate:
            image = np.asarray(Image.fromarray(image).rotate(rng.uniform(-self.rotate, self.rotate)))
        if self.zoom:
            share, (height, width) = 1 - rng.uniform(0, self.zoom), image.shape[:2]
            part = random_crop(image, round(share * height), round(share * width), rng)
            image = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
        if self.preprocess.crop:
            check_crop(image, self.preprocess.crop)
            image = random_crop(image, self.preprocess.crop, self.preprocess.crop, rng)
        if rng.random() < self.flip:
            image = image[:, ::-1]
        return self.preprocess.to_input(image)


def random_crop(image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A (height, width, 3) part of (H, W, 3), every place equally likely."""
    top, left = (rng.integers(whole - part + 1) for whole, part in zip(image.shape, (height, width)))
    return image[top:top + height, left:left + width]


@dataclass(frozen=True)
class TenCrop:
    """Four corners, the centre, and their mirror images: the published CheXNet test protocol."""
    preprocess: Preprocess

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """What the network gets for the ten crops of an image.

        Args:
            image: (H, W, 3) uint8; also a Pillow image.

        Returns:
            (10, 3, h, w) float32.

        Raises:
            InputError: the preprocessing has no crop, or it does not fit into the resized image.
        """
        side = self.preprocess.crop
        if not side:
            raise InputError("ten crops need a preprocessing with a crop, and this checkpoint's has none: "
                             "leave --ten_crop away.")
        image = resize(np.asarray(image, np.uint8), self.preprocess.resize, self.preprocess.antialias)
        return self.preprocess.to_input(ten_crop(image, side))


def resized_shape(shape: Sequence[int], size: int | Sequence[int]) -> tuple[int, int]:
    """The shape that `resize` gives an image.

    Args:
        shape: (H, W) of the image.
        size: an int is the length of the shorter side, a pair is (height, width).

    Returns:
        (height, width) in pixels.

    Raises:
        InputError: the image is a strip, more than ten times as long as wide, and only its shorter side is given.
    """
    height, width = shape
    if not isinstance(size, int):
        return tuple(size)
    short = min(height, width)
    if max(height, width) > _MOST_ELONGATED * short:
        raise InputError(f"an image of {height} x {width} is too elongated to be an X-ray: crop it first.")
    # Paddle truncates the longer side; an already fitting image is left untouched.
    return int(size * height / short), int(size * width / short)


def resize(image: np.ndarray, size: int | Sequence[int], antialias: bool) -> np.ndarray:
    """Bilinear resize of (H, W, 3) uint8, equal to `paddle.vision.transforms.Resize`.

    Args:
        image: (H, W, 3) uint8.
        size: an int is the length of the shorter side, a pair is (height, width).
        antialias: True does what Paddle does to a Pillow image, False what Paddle does to an array.

    Returns:
        (height, width, 3) uint8; the image itself where it fits already.

    Raises:
        InputError: as `resized_shape`.
    """
    new_height, new_width = resized_shape(image.shape[:2], size)
    if (new_height, new_width) == image.shape[:2]:
        return image
    if antialias:
        return np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.BILINEAR))
    return cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)


def centre_corner(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(top, left) of the centre crop in an image of `shape` (H, W)."""
    return round((shape[0] - side) / 2), round((shape[1] - side) / 2)


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Central (side, side, 3) part; offsets rounded as `paddle.vision.transforms.CenterCrop` does.

    Raises:
        InputError: as `check_crop`.
    """
    check_crop(image, side)
    top, left = centre_corner(image.shape[:2], side)
    return image[top:top + side, left:left + side]


def ten_crop(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) to (10, side, side, 3): top left, top right, bottom left, bottom right, centre, then mirrored.

    As in the published code the mirrored five are cut from the mirrored image, in the same order.

    Raises:
        InputError: as `check_crop`.
    """
    def five(image: np.ndarray) -> list[np.ndarray]:
        bottom, right = image.shape[0] - side, image.shape[1] - side
        corners = [image[top:top + side, left:left + side] for top in (0, bottom) for left in (0, right)]
        return [*corners, centre_crop(image, side)]

    check_crop(image, side)
    return np.stack(five(image) + five(image[:, ::-1]))


def check_crop(image: np.ndarray, side: int) -> None:
    """Refuse a crop of `side` pixels that does not fit into the resized image (H, W, 3).

    Raises:
        InputError: it does not fit.
    """
    if min(image.shape[:2]) < side:
        raise InputError(f"a crop of {side} does not fit into an image of {image.shape[0]} x {image.shape[1]}: "
                         "resize to at least the crop.")
