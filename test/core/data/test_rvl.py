"""RVL against an encoder written down from the paper's description, and hostile bytes."""

import numpy as np
import pytest

from stdnet_core.data.bags.rvl import decode_rvl


def encode(pixels: np.ndarray) -> bytes:
    """One value after the other, as in the paper's listing (Wilson 2017)."""
    nibbles: list[int] = []

    def write(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | 8 if value else nibble)
            if not value:
                return

    values, at, previous = [int(v) for v in pixels.ravel()], 0, 0
    while at < len(values):
        zeros = at
        while at < len(values) and not values[at]:
            at += 1
        write(at - zeros)
        end = at
        while end < len(values) and values[end]:
            end += 1
        write(end - at)
        for value in values[at:end]:
            difference = value - previous
            write(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = value
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = [nibbles[i : i + 8] for i in range(0, len(nibbles), 8)]
    return np.array([sum(n << (28 - 4 * k) for k, n in enumerate(word)) for word in words], "<u4").tobytes()


def decode(data: bytes, count: int) -> np.ndarray:
    return decode_rvl(np.frombuffer(data, np.uint8), count)


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = (1500 + 40 * np.sin(np.arange(4000) / 50) + rng.normal(0, 3, 4000)).astype(np.uint16)
    holes = np.where(rng.random(4000) < 0.3, 0, smooth).astype(np.uint16)
    wild = rng.integers(0, 65536, 500).astype(np.uint16)
    patches = smooth.copy()
    patches[:700] = patches[2000:2003] = patches[3999:] = 0
    return [smooth, holes, wild, patches, np.zeros(64, np.uint16), np.array([65535, 1, 65535, 0, 7], np.uint16)]


@pytest.mark.parametrize("pixels", images(), ids=["smooth", "holes", "wild", "patches", "zeros", "extremes"])
def test_what_was_encoded_comes_back(pixels):
    np.testing.assert_array_equal(decode(encode(pixels), pixels.size), pixels)


def test_words_written_out_by_hand():
    # 2 zeros, 1 value of 9: numbers 2, 1, 18 = 0b10010 -> nibbles 2, 1, 2 with "more follows", 2.
    data = (0x21A20000).to_bytes(4, "little")
    np.testing.assert_array_equal(decode(data, 3), [0, 0, 9])


def test_bytes_of_the_transport_s_own_encoder():
    """Made by RvlCodec of compressed_depth_image_transport (image_transport_plugins)."""
    data = bytes.fromhex("45e58f23f39a892225f3ffbfad2483ef002011c8")
    image = [[0, 0, 1500, 1502, 1499, 0], [0, 65535, 1, 0, 0, 800], [801, 803, 3000, 2999, 0, 0]]
    np.testing.assert_array_equal(decode(data, 18).reshape(3, 6), image)
    assert encode(np.array(image, np.uint16)) == data


def test_damaged_data_are_refused_or_give_an_image():
    rng = np.random.default_rng(4)
    good = np.frombuffer(encode(images()[1]), np.uint8)
    refused = 0
    for _ in range(300):
        data = good[: int(rng.integers(0, good.size))].copy() if rng.random() < 0.5 else good.copy()
        for _ in range(3):
            if data.size:
                data[rng.integers(data.size)] = rng.integers(256)
        try:
            assert decode_rvl(data, 4000).shape == (4000,)
        except ValueError:
            refused += 1
    assert refused > 150
    with pytest.raises(ValueError, match="end before"):
        decode(b"", 4)
    with pytest.raises(ValueError, match="too long"):
        decode(b"\xff" * 20 + bytes(4), 4)
    with pytest.raises(ValueError, match="do not fit"):
        decode(bytes(40), 4)
