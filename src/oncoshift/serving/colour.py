"""Conversion of any Pillow image to sRGB on white: colour profiles, CMYK, grey, transparency."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""The colour space that a profile must have, by the mode of the pixels."""

_GREY = frozenset({"1", "L", "LA", "La"})


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of at most 8 bits per channel to RGB of the same size.

    An embedded ICC profile is applied; like viewers, this ignores a profile that is broken or of
    another colour space. Transparent pixels become white, as glass is on a slide.

    Raises:
        ValueError: Pillow cannot convert the image's mode (for example LAB).
    """
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    base = image
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        base = with_alpha.convert("L" if image.mode in _GREY else "RGB")
    elif image.mode not in _SPACES:
        base = image.convert("L" if image.mode in _GREY else "RGB")
    rgb = _apply(profile, base) if isinstance(profile, bytes) and profile else None
    if rgb is None:
        rgb = base.convert("RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _apply(profile: bytes, image: Image.Image) -> Image.Image | None:
    try:
        transform = _transform(profile, image.mode)
        return None if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


# The tiles of a slide carry the same profile, and building a transform costs more than applying it.
@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if the pixels need none."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() != _SPACES[mode]:
        return None
    if "srgb" in (source.profile.profile_description or "").lower():
        return None
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, mode, "RGB")
