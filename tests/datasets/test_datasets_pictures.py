"""Image files: what a pixel becomes, which files are refused, and the kinds of data that name or hold them."""

import csv
import io
import json
import zlib

import numpy as np
import pytest
from picture_files import strokes, write_folder

from harness.datasets import _decode as decode
from harness.datasets import open_dataset, open_samples, path_kinds
from harness.errors import DataError
from harness.models.preprocess import Fit
from harness.specs import Preprocess

Image = pytest.importorskip("PIL.Image", reason="image files are read by Pillow (extra `images`)")
GREY = Fit(Preprocess(), 1)


def encoded(image, **how):
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **how})
    return file.getvalue()


def one_error(call, *says):
    with pytest.raises(DataError) as error:
        call()
    told = str(error.value)
    assert "\n" not in told
    assert not [word for word in says if word not in told], told


# -- what a pixel becomes


def ramp(mode="RGB"):
    pixels = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_grey_and_colour_keep_their_bytes():
    for mode in ("L", "RGB"):
        image = ramp(mode)
        found = decode.decode_image(encoded(image), "a.png")
        np.testing.assert_array_equal(found, np.asarray(image).reshape(4, 6, -1))


def test_of_sixteen_bits_the_upper_eight_are_kept():
    values = np.array([[0, 255, 256], [257, 32768, 65535]], np.uint16)
    found = decode.decode_image(encoded(Image.fromarray(values)), "a.png")
    np.testing.assert_array_equal(found[:, :, 0], values >> 8)


def test_alpha_is_dropped():
    image = ramp("RGBA")
    image.putalpha(7)
    np.testing.assert_array_equal(decode.decode_image(encoded(image), "a.png"), np.asarray(ramp()))
    grey = ramp("LA")
    np.testing.assert_array_equal(decode.decode_image(encoded(grey), "a.png")[:, :, 0], np.asarray(ramp("L")))


def test_palettes_become_rgb_and_bits_black_and_white():
    palette = ramp().quantize(8)
    np.testing.assert_array_equal(decode.decode_image(encoded(palette), "a.png"), np.asarray(palette.convert("RGB")))
    bits = ramp("L").point(lambda value: 255 * (value > 127)).convert("1")
    assert set(np.unique(decode.decode_image(encoded(bits), "a.png"))) == {0, 255}


def test_an_image_is_turned_as_its_exif_orientation_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    found = decode.decode_image(encoded(ramp("L"), exif=exif), "a.png")
    np.testing.assert_array_equal(found[:, :, 0], np.rot90(np.asarray(ramp("L")), -1))


def test_cmyk_becomes_rgb():
    found = decode.decode_image(encoded(ramp("CMYK"), format="JPEG", quality=95), "a.jpg")
    assert found.shape == (4, 6, 3)


# -- what is refused


def test_damaged_images_are_refused_by_name(tmp_path):
    whole = encoded(ramp())
    for data, says in (
        (b"", "not an image"),
        (b"GIF89a" + bytes(40), "not an image"),
        (whole[:60], "a.png"),
        (whole[:30] + b"\xff" + whole[31:], "a.png"),
    ):
        one_error(lambda data=data: decode.decode_image(data, tmp_path / "a.png"), "a.png", says, "PNG")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    side = 40_000  # 1.6 gigapixels in some hundred bytes
    head = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    one_error(lambda: decode.decode_image(data + encoded(ramp())[33:], "bomb.png"), "bomb.png", "89478485")
    monkeypatch.setattr(decode, "MAX_PIXELS", 23)
    one_error(lambda: decode.decode_image(encoded(ramp()), "a.png"), "a.png: 6 x 4 pixels; at most 23")
    monkeypatch.setattr(decode, "MAX_PIXELS", 24)
    decode.decode_image(encoded(ramp()), "a.png")


# -- folders by class


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "digits", *strokes(0, 40))


def rows_of(dataset):
    pixels, labels = dataset.read(0, dataset.n_images)
    return sorted((label, image.tobytes()) for image, label in zip(pixels, labels.tolist(), strict=True))


def test_a_folder_holds_what_was_written(folder):
    pixels, labels = strokes(0, 40)
    data = open_dataset(str(folder), split="test", fit=GREY)
    assert (data.n_images, data.num_classes, data.image_shape, data.split) == (40, 10, (1, 28, 28), "all")
    assert rows_of(data) == sorted((label, i.tobytes()) for i, label in zip(pixels, labels.tolist(), strict=True))


def test_any_range_goes_round_the_classes(folder):
    labels = open_dataset(str(folder), split="test", fit=GREY).read(0, 10)[1]
    assert labels.tolist() == list(range(10))


def test_files_come_in_natural_order(tmp_path):
    for name in ("10", "9", "2b", "2a", "1"):
        write_folder(tmp_path / "d" / "x", *strokes(0, 1), names=lambda _: "c").joinpath("c", "0.png").rename(
            tmp_path / f"{name}.png"
        )
    (tmp_path / "f" / "c").mkdir(parents=True)
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "f" / "c" / path.name)
    samples = open_samples(str(tmp_path / "f"), split="test")
    assert [samples.sample(i).id for i in range(5)] == ["c/1.png", "c/2a.png", "c/2b.png", "c/9.png", "c/10.png"]


def test_names_are_numbered_in_natural_order_and_whole_numbers_are_their_own_labels(tmp_path):
    pixels, labels = strokes(0, 20)
    write_folder(tmp_path / "words", pixels, labels, names=lambda label: f"class{label + 1}")
    chosen = labels > 6
    write_folder(tmp_path / "numbers", pixels[chosen], labels[chosen], names=lambda label: f"{label:04}")
    assert set(open_samples(str(tmp_path / "words"), split="test").labels) == set(labels)
    numbers = open_samples(str(tmp_path / "numbers"), split="test")
    assert (set(numbers.labels), numbers.class_names) == ({7, 8, 9}, ("0007", "0008", "0009"))


def test_classes_txt_gives_the_order(tmp_path):
    pixels, labels = strokes(0, 20)
    folder = write_folder(tmp_path / "d", pixels, labels % 2, names=("odd", "even").__getitem__)
    (folder / "classes.txt").write_text("none\nodd\neven\n")
    samples = open_samples(str(folder), split="test")
    assert sorted(set(samples.labels)) == [1, 2]
    assert open_dataset(str(folder), split="test", fit=GREY).num_classes == 3
    (folder / "classes.txt").write_text("odd\n")
    one_error(lambda: open_samples(str(folder), split="test"), str(folder), "class 'even' is not in classes.txt")


def test_splits_are_folders_and_share_their_classes(tmp_path):
    pixels, labels = strokes(0, 20)
    write_folder(tmp_path / "d" / "train", pixels, labels, names=lambda label: f"c{label}")
    write_folder(tmp_path / "d" / "val", pixels[labels == 5], labels[labels == 5], names=lambda label: f"c{label}")
    test = open_samples(str(tmp_path / "d"), split="test")
    assert (test.split, set(test.labels), len(test.class_names)) == ("test", {5}, 10)
    (tmp_path / "only").mkdir()
    (tmp_path / "d" / "train").rename(tmp_path / "only" / "train")
    one_error(lambda: open_samples(str(tmp_path / "only"), split="test"), "no split 'test', only train")


def test_a_damaged_file_of_a_folder_is_named_when_it_is_read(folder):
    bad = next((folder / "3").glob("*.png"))
    bad.write_bytes(bad.read_bytes()[:70])
    data = open_dataset(str(folder), split="test", fit=GREY)
    one_error(lambda: data.read(0, 40), str(bad))


def test_images_of_unlike_sizes_are_refused_unless_the_card_resizes(folder):
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(folder / "9" / "zzz.png")
    data = open_dataset(str(folder), split="test", fit=GREY)
    one_error(lambda: data.read(0, data.n_images), "9/zzz.png", "30 x 20 x 1", "[preprocess] resize")
    fit = Fit(Preprocess(resize=(14, 14)), 3)
    sized = open_dataset(str(folder), split="test", fit=fit)
    assert sized.read(0, sized.n_images)[0].shape == (41, 3, 14, 14)


def test_a_stored_data_set_is_resized_too():
    fit = Fit(Preprocess(resize=(32, 32)), 1)
    data = open_dataset("strokes", split="test", fit=fit)
    pixels, labels = data.read(3, 6)
    assert (data.image_shape, pixels.shape) == ((1, 32, 32), (3, 1, 32, 32))
    expected = Image.fromarray(strokes(3, 4)[0][0]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels[0, 0], np.asarray(expected))
    np.testing.assert_array_equal(labels, strokes(3, 6)[1])


def test_a_card_that_asks_for_nothing_leaves_the_data_set_itself():
    assert type(open_dataset("strokes", split="test", fit=GREY)) is type(open_dataset("strokes", split="test"))


# -- lists of labels


def write_list(folder, rows, header=("file", "label"), name="labels.csv"):
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def flat_images(folder, n_images=12):
    pixels, labels = strokes(0, n_images)
    (folder / "images").mkdir(parents=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    return [(f"images/{index}.png", int(label)) for index, label in enumerate(labels)], pixels, labels


@pytest.mark.parametrize("kind", ["csv", "list", "map"])
def test_labels_in_a_file_are_those_of_its_images(tmp_path, kind):
    rows, pixels, labels = flat_images(tmp_path)
    if kind == "csv":
        write_list(tmp_path, [(label, "x", file) for file, label in rows], ("class", "more", "filename"))
    else:
        content = dict(rows) if kind == "map" else [{"path": file, "target": label} for file, label in rows]
        (tmp_path / "labels.json").write_text(json.dumps(content))
    data = open_dataset(str(tmp_path), split="test", fit=GREY)
    found, numbers = data.read(0, 12)
    np.testing.assert_array_equal(found[:, 0], pixels)
    np.testing.assert_array_equal(numbers, labels)


def test_a_list_may_hold_texts_and_numbers_to_be_predicted(tmp_path):
    rows, *_ = flat_images(tmp_path)
    write_list(tmp_path, [(file, f"word {index}") for index, (file, _) in enumerate(rows)], ("file", "text"))
    assert open_samples(str(tmp_path), split="test").sample(3).target == "word 3"
    write_list(tmp_path, [(file, f"00{index}") for index, (file, _) in enumerate(rows)], ("file", "text"))
    assert open_samples(str(tmp_path), split="test").sample(3).target == "003"
    write_list(tmp_path, [(file, index / 4) for index, (file, _) in enumerate(rows)])
    assert open_samples(str(tmp_path), split="test").sample(3).target == 0.75
    one_error(lambda: open_dataset(str(tmp_path), split="test"), str(tmp_path), "no class for each image")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "images/../../secret.png", "link.png", "", "a\0b"])
def test_a_list_names_no_file_out_of_its_folder(tmp_path, name):
    inner = tmp_path / "data"
    flat_images(inner)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "secret.png")
    (inner / "link.png").symlink_to(tmp_path / "secret.png")
    (inner / "labels.json").write_text(json.dumps([{"file": name, "label": 1}]))
    one_error(lambda: open_samples(str(inner), split="test"), "labels.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("file,label\n", "names no images"),
        ("file,label\na.png\n", "line 2 has 1 values"),
        ("name,kind\na.png,3\n", "expected one of file, filename"),
        ('file,label\n"a.png,3\n', "no CSV"),
    ],
)
def test_a_damaged_list_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text)
    one_error(lambda: open_samples(str(tmp_path / "labels.csv"), split="test"), "labels.csv", says)


@pytest.mark.parametrize("text", ["{", "[1]", "7", '[{"file": 3, "label": 1}]', '{"a.png": [1]}', "[" * 100_000])
def test_damaged_json_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    one_error(lambda: open_samples(str(tmp_path / "labels.json"), split="test"), "labels.json")


def test_a_csv_of_pixels_is_read_at_once(tmp_path):
    pixels, labels = strokes(0, 12)
    rows = [(label, *image.ravel()) for image, label in zip(pixels, labels, strict=True)]
    header = ("label", *(f"pixel{index}" for index in range(784)))
    path = write_list(tmp_path, rows, header, "test.csv") / "test.csv"
    data = open_dataset(str(path), split="test", fit=GREY)
    np.testing.assert_array_equal(data.read(0, 12)[0], pixels)
    np.testing.assert_array_equal(data.read(2, 9)[1], labels[2:9])
    assert open_samples(str(path), split="test").sample(4).inputs["image"].shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        (("label", "pixel0", "pixel1", "pixel2", "pixel3", "pixel4"), (1, 2, 3, 4, 5, 6), "5 columns of pixels"),
        (("label", "pixel0", "pixel1", "pixel2", "pixel3"), (1, 2, 3, 4, 256), "0..255"),
        (("label", "pixel0", "pixel1", "pixel2", "pixel3"), (1, 2, 3, 4, 0.5), "0..255"),
        (("label", "pixel0", "pixel1", "pixel2", "pixel3"), (-1, 2, 3, 4, 5), "label of 0"),
        (("id", "pixel0", "pixel1", "pixel2", "pixel3"), (1, 2, 3, 4, 5), "expected label"),
    ],
)
def test_a_csv_of_other_pixels_is_refused(tmp_path, header, row, says):
    path = write_list(tmp_path, [row], header, "a.csv") / "a.csv"
    one_error(lambda: open_dataset(str(path), split="test"), "a.csv", says)


# -- COCO


def write_coco(folder, **changes):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in (7, 3):
        Image.fromarray(np.full((20, 30, 3), index, np.uint8)).save(folder / "images" / f"{index}.png")
    content = {
        "images": [{"id": index, "file_name": f"{index}.png", "width": 30, "height": 20} for index in (7, 3)],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 10, 4.5], "area": 40.0, "iscrowd": 1},
            {"id": 2, "image_id": 3, "category_id": 9, "bbox": [0, 0, 30, 20], "segmentation": []},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog", "supercategory": "animal"}],
    }
    (folder / "instances.json").write_text(json.dumps({**content, **changes}))
    return folder / "instances.json"


def test_coco_gives_boxes_in_pixels(tmp_path):
    samples = open_samples(str(write_coco(tmp_path)), split="test")
    assert samples.n_samples == 2
    first, second = samples.sample(0), samples.sample(1)
    assert (first.id, first.inputs["image"][0, 0, 0], first.target["size"]) == ("3.png", 3, (20, 30))
    np.testing.assert_array_equal(first.target["boxes"], [[1, 2, 11, 6.5], [0, 0, 30, 20]])
    assert first.target["labels"].tolist() == [5, 9]
    assert first.target["iscrowd"].tolist() == [True, False]
    assert first.target["area"].tolist() == [40, 600]
    assert second.target["boxes"].shape == (0, 4)
    assert samples.categories == {5: "cat", 9: "dog"}


def test_coco_in_its_published_layout(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_val2017.json")
    (tmp_path / "images").rename(tmp_path / "val2017")
    samples = open_samples(str(tmp_path), split="test")
    assert (samples.split, samples.sample(0).id) == ("test", "3.png")
    one_error(lambda: open_samples(str(tmp_path), split="train"), "no split 'train', only test")


def test_coco_of_a_folder_without_splits_is_whole(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_default.json")  # as CVAT exports it
    for split in ("train", "test"):
        samples = open_samples(str(tmp_path), split=split)
        assert (samples.split, samples.n_samples) == ("all", 2)


BOX = {"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 3, 4]}
IMAGE_3 = {"id": 3, "file_name": "3.png", "width": 30, "height": 20}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": []}, "lists no images"),
        ({"images": [IMAGE_3, IMAGE_3]}, "two images have one id"),
        ({"images": [{**IMAGE_3, "file_name": "../instances.json"}]}, "expected a file below"),
        ({"images": [{**IMAGE_3, "file_name": "9.png"}]}, "9.png, is in none of"),
        ({"images": [{**IMAGE_3, "file_name": 3}]}, "not a COCO file"),
        ({"annotations": [{**BOX, "category_id": 1}]}, "category 1"),
        ({"annotations": [{**BOX, "image_id": 1}]}, "image 1"),
        ({"annotations": [{**BOX, "bbox": [1, 2, -3, 4]}]}, "negative size"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3]}]}, "not a COCO file"),
        ({"categories": None}, "not a COCO file"),
    ],
)
def test_damaged_coco_is_refused_in_one_line(tmp_path, changes, says):
    path = write_coco(tmp_path, **changes)
    one_error(lambda: open_samples(str(path), split="test"), "instances.json", says)


def test_an_image_of_another_size_than_coco_says_is_refused(tmp_path):
    path = write_coco(tmp_path, images=[{**IMAGE_3, "width": 20, "height": 30}], annotations=[])
    samples = open_samples(str(path), split="test")
    one_error(lambda: samples.sample(0), "3.png: 30 x 20 pixels", "20 x 30")


# -- what no kind reads


def test_every_kind_that_takes_paths_says_what_it_reads():
    found = path_kinds()
    assert len(found) == 10
    assert found["a folder of image files by class"] == "usable"
    assert all(state == "usable" or state.startswith("needs ") for state in found.values())


@pytest.mark.parametrize("name", ["a.h5", "a.mat", "empty", "gone.zip"])
def test_what_is_not_read_is_told_with_what_is(tmp_path, name):
    (tmp_path / "empty").mkdir()
    if name[0] == "a":
        (tmp_path / name).write_bytes(b"\x89HDF\r\n")
    one_error(
        lambda: open_dataset(str(tmp_path / name), split="test"),
        str(tmp_path / name),
        "a folder of image files by class",
        "Parquet files",
        "an IDX images file",
    )
