from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from models.contracts.model_manifest import ExposureLimits
from models.contracts.sample import CannotJudge
from models.runtime.image import Header, Unreadable, cannot_judge, decode_image, measure_exposure, read_header
from tests.models.runtime.tiny import part


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


@pytest.mark.parametrize(("kind", "media"), [(".png", "image/png"), (".jpg", "image/jpeg"), (".bmp", "image/bmp")])
def test_header_says_type_and_size_without_decoding(kind: str, media: str) -> None:
    data = encoded(kind, np.zeros((30, 40), dtype=np.uint8))
    assert read_header(data) == Header(media, 40, 30)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff\xe0", b"not an image at all"])
def test_bytes_that_are_no_image_are_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode_image(data)


def png_claiming(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(Unreadable, match="at most 64 Mpixel"):
        decode_image(png_claiming(60_000, 60_000))


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(Unreadable):
        read_header(png_claiming(0, 100))


def test_a_truncated_image_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="truncated or corrupt"):
        decode_image(png_claiming(32, 32))


def test_a_jpeg_whose_segments_lead_nowhere_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        read_header(b"\xff\xd8\xff\xe0\xff\xff" + bytes(20))


def test_sixteen_bits_and_alpha_become_eight_bit_pixels() -> None:
    deep = np.full((8, 8), 0x8040, dtype=np.uint16)
    assert (decode_image(encoded(".png", deep)) == 0x80).all()
    transparent = np.zeros((8, 8, 4), dtype=np.uint8)
    transparent[..., 2] = 200  # red, in OpenCV's order
    decoded = decode_image(encoded(".png", transparent))
    assert decoded.shape == (8, 8, 3)
    assert decoded[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((20, 20), dtype=np.uint8), CannotJudge.TOO_DARK),
        (np.full((20, 20), 255, dtype=np.uint8), CannotJudge.TOO_BRIGHT),
        (np.full((20, 20), 128, dtype=np.uint8), CannotJudge.NO_CONTRAST),
        (part(1), None),
    ],
)
def test_exposure_says_which_frames_cannot_be_judged(pixels: np.ndarray, reason: CannotJudge | None) -> None:
    assert cannot_judge(measure_exposure(pixels), ExposureLimits()) is reason


def test_exposure_measures_the_shift_from_the_reference() -> None:
    pixels = part(2)
    assert measure_exposure(pixels).shift is None
    assert measure_exposure(pixels, reference_mean=0.0).shift == pytest.approx(float(pixels.mean()))


def test_sharpness_falls_with_blur() -> None:
    sharp = np.kron(part(3), np.ones((2, 2), dtype=np.uint8))
    assert measure_exposure(cv2.GaussianBlur(sharp, (0, 0), 2)).sharpness < measure_exposure(sharp).sharpness


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1)])
def test_a_frame_of_one_row_is_measured(shape: tuple[int, int]) -> None:
    """Shrunk to 512 pixels it would have no row left."""
    pixels = np.tile(np.array([80, 160], dtype=np.uint8), 1000).reshape(shape)
    assert measure_exposure(pixels).mean == pytest.approx(120, abs=1)
