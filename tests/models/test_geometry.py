"""Resize, letterbox, crop, colours: by Pillow, sized as torchvision and ultralytics do; the card's table of them."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import ConfigError, DataError
from harness.models import load_card
from harness.models.card_text import card_text
from harness.models.preprocess import (
    Fit,
    fingerprint_of_inputs,
    fit_of,
    images_from_pixels,
    placement,
    prepare_image,
)
from harness.specs import Preprocess

Image = pytest.importorskip("PIL.Image", reason="images are resized by Pillow (extra `images`)")


@pytest.fixture
def photo():
    return np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)


def planes_of(image):
    return image.transpose(2, 0, 1)


# -- sizes


@pytest.mark.parametrize(
    ("size", "asked", "resized", "shown", "offset"),
    [
        # torchvision: Resize(256) of 300 x 400 gives int(256 * 400 / 300) = 341, CenterCrop round((341 - 224) / 2)
        ((300, 400), Preprocess(resize=(256,), crop=(224, 224)), (256, 341), (224, 224), (-16, -58)),
        ((400, 300), Preprocess(resize=(256,), crop=(224, 224)), (341, 256), (224, 224), (-58, -16)),
        ((225, 227), Preprocess(crop=(224, 224)), (225, 227), (224, 224), (0, -2)),
        ((30, 40), Preprocess(resize=(64, 32)), (64, 32), (64, 32), (0, 0)),
        # ultralytics: 1080 x 1920 into 640 x 640 is 360 x 640 below a margin of 140
        ((1080, 1920), Preprocess(resize=(640, 640), fit="letterbox"), (360, 640), (640, 640), (140, 0)),
        ((375, 500), Preprocess(resize=(640, 640), fit="letterbox"), (480, 640), (640, 640), (80, 0)),
        ((99, 100), Preprocess(resize=(100, 100), fit="letterbox"), (99, 100), (100, 100), (0, 0)),
    ],
)
def test_sides_are_rounded_as_the_training_tools_do(size, asked, resized, shown, offset):
    place = placement(*size, asked)
    assert (place.resized, place.size, (place.offset_y, place.offset_x)) == (resized, shown, offset)
    assert (place.scale_y, place.scale_x) == (resized[0] / size[0], resized[1] / size[1])


def test_a_crop_larger_than_the_image_is_refused(photo):
    with pytest.raises(DataError, match=r"a\.png: 30 x 40 pixels cannot be cropped to 32 x 32; resize them first"):
        Fit(Preprocess(crop=(32, 32)), 3)(photo, "a.png")


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_pixels_are_pillows(photo, name):
    shown = Fit(Preprocess(resize=(12, 17), interpolation=name), 3)(photo, "a.png")
    expected = Image.fromarray(photo).resize((17, 12), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(shown, planes_of(np.asarray(expected)))


def test_shrinking_is_antialiased():
    lines = np.zeros((64, 64, 1), np.uint8)
    lines[:, ::2] = 255
    assert np.ptp(Fit(Preprocess(resize=(8, 8)), 1)(lines, "a")[0, :, 1:-1].astype(int)) <= 2  # grey, no moire
    assert set(np.unique(Fit(Preprocess(resize=(8, 8), interpolation="nearest"), 1)(lines, "a"))) <= {0, 255}


def test_a_letterbox_keeps_the_aspect_and_pads(photo):
    shown = Fit(Preprocess(resize=(40, 40), fit="letterbox", pad=114), 3)(photo, "a")
    np.testing.assert_array_equal(shown[:, 5:35], planes_of(photo))
    assert set(np.unique(shown[:, :5])) == set(np.unique(shown[:, 35:])) == {114}


def test_a_centre_crop_is_cut_out(photo):
    np.testing.assert_array_equal(Fit(Preprocess(crop=(20, 30)), 3)(photo, "a"), planes_of(photo[5:25, 5:35]))


# -- colours


def test_colours_follow_the_models_channels_or_the_card(photo):
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    np.testing.assert_array_equal(Fit(Preprocess(), 3)(photo, "a"), planes_of(photo))
    np.testing.assert_array_equal(Fit(Preprocess(), 1)(photo, "a")[0], grey)
    np.testing.assert_array_equal(Fit(Preprocess(color="bgr"), 3)(photo, "a"), planes_of(photo)[::-1])
    repeated = Fit(Preprocess(), 3)(grey[:, :, None], "a")
    assert (repeated == grey).all()
    assert len(repeated) == 3


@pytest.mark.parametrize(("color", "channels"), [("rgb", 1), ("grey", 3), ("auto", 4)])
def test_channels_that_the_model_lacks_are_refused(photo, color, channels):
    with pytest.raises(DataError, match=f"the model takes {channels} channels"):
        Fit(Preprocess(color=color), channels)(photo, "a")


# -- one image for a model


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "flat"])
def test_one_image_is_prepared_as_a_classifiers_are(photo, spec, layout):
    shape = {"NCHW": (3, 30, 40), "NHWC": (30, 40, 3), "flat": (3600,)}[layout]
    spec = replace(spec, input_shape=shape, layout=layout, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    spec = replace(spec, preprocess=Preprocess(color="rgb"))
    np.testing.assert_array_equal(
        prepare_image(photo, spec), images_from_pixels(planes_of(photo)[None], spec)[0], strict=True
    )


def test_an_image_of_another_size_names_the_remedy(photo, spec):
    spec = replace(spec, input_shape=(3, 32, 32))
    with pytest.raises(DataError, match=r"\(3, 30, 40\) does not fit .* \[preprocess\] resize"):
        prepare_image(photo, spec)
    with pytest.raises(DataError, match=r"\[preprocess\] resize"):
        images_from_pixels(planes_of(photo)[None], spec)
    assert prepare_image(photo, spec, shape=(3, 0, 0)).shape == (3, 30, 40)  # free axes


def test_the_dtype_is_the_cards(photo, spec):
    spec = replace(spec, input_shape=(3, 30, 40))
    half = prepare_image(photo, replace(spec, preprocess=Preprocess(dtype="float16")))
    assert half.dtype == np.float16
    whole = replace(spec, scale=1.0, preprocess=Preprocess(dtype="uint8"))
    np.testing.assert_array_equal(prepare_image(photo, whole), planes_of(photo), strict=True)
    for bad in (replace(whole, mean=(9.0,)), replace(whole, scale=2.0)):
        with pytest.raises(DataError, match="which uint8 does not hold"):
            prepare_image(photo, bad)
    with pytest.raises(DataError, match="that float16 does not hold"):
        prepare_image(photo, replace(spec, scale=1e6, preprocess=Preprocess(dtype="float16")))


# -- what a record says


def test_a_card_without_the_table_has_the_fingerprint_it_had(spec):
    card = [spec.layout, spec.scale, list(spec.mean), list(spec.std)]
    text = str(["abc", *card]).replace("'", '"')
    assert fingerprint_of_inputs("abc", spec) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"resize": (9, 9)}, {"crop": (4, 4)}, {"color": "bgr"}, {"dtype": "float16"}])
def test_what_is_done_to_images_is_part_of_the_fingerprint(spec, change):
    changed = replace(spec, preprocess=Preprocess(**change))
    assert fingerprint_of_inputs("abc", changed) != fingerprint_of_inputs("abc", spec)


def test_geometry_is_part_of_what_a_record_says(spec):
    assert spec.preprocessing["geometry"] == "as stored"
    asked = Preprocess(resize=(256,), crop=(224, 224), color="rgb")
    assert replace(spec, preprocess=asked).preprocessing["geometry"] == (
        "resize shorter side 256 bilinear, crop 224x224, rgb"
    )
    boxed = Preprocess(resize=(640, 320), fit="letterbox")
    assert replace(spec, preprocess=boxed).preprocessing["geometry"] == "resize 640x320 bilinear, letterbox 114"


# -- the card


def write_card(folder, table, *, shape=(3, 224, 224), more=""):
    (folder / "net.onnx").write_bytes(b"no weights")
    path = folder / "net.toml"
    path.write_text(
        f'[model]\nfile = "net.onnx"\n[input]\nname = "x"\nshape = {list(shape)}\n{more}\n'
        f'[output]\nname = "y"\nclasses = 10\n[preprocess]\n{table}\n'
    )
    return path


def test_the_preset_imagenet(tmp_path):
    spec = load_card(write_card(tmp_path, 'preset = "imagenet"'))
    assert spec.preprocess == Preprocess(resize=(256,), crop=(224, 224), color="rgb")
    assert (spec.mean, spec.std, spec.scale) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255)
    other = load_card(write_card(tmp_path, 'preset = "imagenet"\nresize = 300', shape=(3, 299, 299)))
    assert other.preprocess.resize == (300,)
    assert load_card(write_card(tmp_path, 'preset = "imagenet"', shape=(3, 299, 299))).preprocess.resize == (342,)


def test_the_preset_yolo(tmp_path):
    spec = load_card(write_card(tmp_path, 'preset = "yolo"', shape=(3, 384, 640)))
    assert spec.preprocess == Preprocess(resize=(384, 640), fit="letterbox", color="rgb", pad=114)
    assert (spec.mean, spec.std, spec.scale) == ((0.0,), (1.0,), 1 / 255)


def test_every_key_of_the_table_counts(tmp_path):
    table = 'resize = [230, 240]\ncrop = 224\ninterpolation = "bicubic"\ncolor = "bgr"\npad = 3\ndtype = "float16"\n'
    table += 'scale = 1.0\nmean = [1, 2, 3]\nstd = [4, 5, 6]\nlayout = "NHWC"\nfit = "stretch"'
    spec = load_card(write_card(tmp_path, table, shape=(224, 224, 3)))
    assert spec.preprocess == Preprocess(
        resize=(230, 240), crop=(224, 224), interpolation="bicubic", color="bgr", pad=3, dtype="float16"
    )
    assert (spec.scale, spec.mean, spec.std, spec.layout) == (1.0, (1, 2, 3), (4, 5, 6), "NHWC")


@pytest.mark.parametrize(
    ("table", "more", "error", "says"),
    [
        ('preset = "resnet"', "", DataError, "choose from imagenet, yolo"),
        ("resise = 224", "", DataError, "unknown field `resise`"),
        ("resize = [1, 2, 3]", "", DataError, "resize"),
        ("resize = [100, 224]", "", DataError, "makes images of 100 x 224, the model takes 224 x 224"),
        ("crop = 200", "", DataError, "makes images of 200 x 200"),
        ("resize = 0", "", ConfigError, "at least 1 pixel"),
        ('fit = "letterbox"', "", ConfigError, "needs resize"),
        ('fit = "stretched"', "", ConfigError, "choose from stretch, letterbox"),
        ('color = "yuv"', "", ConfigError, "choose from auto, rgb, bgr, grey"),
        ('dtype = "int8"', "", ConfigError, "choose from float32, float16, uint8"),
        ('interpolation = "area"', "", ConfigError, "choose from nearest"),
        ("pad = 300", "", ConfigError, "0..255"),
        ("mean = [1.0]", "mean = [2.0]", DataError, "mean stands in [input] and in [preprocess]"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, table, more, error, says):
    with pytest.raises(error) as raised:
        load_card(write_card(tmp_path, table, more=more))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_preset_needs_an_input_of_a_size(tmp_path):
    with pytest.raises(DataError, match="needs an input shape with height and width"):
        load_card(write_card(tmp_path, 'preset = "yolo"', shape=(784,), more='layout = "flat"'))


@pytest.mark.parametrize(
    "asked",
    [
        Preprocess(),
        Preprocess(resize=(256,), crop=(224, 224), color="bgr", interpolation="lanczos"),
        Preprocess(resize=(224, 224), fit="letterbox", pad=0, dtype="uint8"),
    ],
)
def test_a_card_is_written_and_read_back(tmp_path, spec, asked):
    (tmp_path / "net.onnx").write_bytes(b"no weights")
    spec = replace(spec, input_shape=(3, 224, 224), preprocess=asked, sha256="")
    (tmp_path / "net.toml").write_text(card_text(spec, file="net.onnx", provenance=""))
    read = load_card(tmp_path / "net.toml")
    assert (read.preprocess, read.scale, read.mean, read.std) == (asked, spec.scale, spec.mean, spec.std)


def test_a_card_of_a_coloured_model_says_how_images_are_sized(tmp_path, spec):
    (tmp_path / "net.onnx").write_bytes(b"no weights")
    written = card_text(replace(spec, input_shape=(3, 224, 224), sha256=""), file="net.onnx", provenance="")
    hinted = [line.removeprefix("# ") for line in written.splitlines() if not line.startswith(("mean", "std"))]
    (tmp_path / "net.toml").write_text("\n".join(hinted))
    assert load_card(tmp_path / "net.toml").preprocess == Preprocess(resize=(256,), crop=(224, 224), color="rgb")
    assert "[preprocess]" not in card_text(replace(spec, input_shape=(1, 28, 28)), file="net.onnx", provenance="")


def test_models_that_want_the_same_pixels_share_a_fit(spec):
    flat = replace(spec, input_shape=(784,), layout="flat")
    grey = replace(spec, input_shape=(1, 28, 28))
    assert fit_of(flat) == fit_of(grey)
    assert fit_of(replace(spec, input_shape=(3, 28, 28))) != fit_of(grey)
