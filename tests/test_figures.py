import base64
import io
import math
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from longflow import figures
from longflow.errors import UsageError
from longflow.figures import plane, style
from longflow.figures.clouds import _shared_frames as shared_frames
from longflow.figures.maps import _mass as mass
from longflow.figures.ticks import ticks
from longflow.report import Picture, Section, page

RNG = np.random.default_rng(0)
NAN, INF = math.nan, math.inf
DIGITS = RNG.integers(0, 17, (6, 1, 8, 8))


def decode(png, mode="RGB"):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert(mode)).astype(int)


def cell(picture, row, column, size, top=0, left=0):
    """The pixels of one cell of a sheet of square cells with gutters of 2."""
    y, x = top + 2 + row * (size + 2), left + 2 + column * (size + 2)
    return picture[y : y + size, x : x + size]


def near(picture, colour, tolerance=12):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(picture - wanted).max(axis=2) <= tolerance


def assert_plot(png, width, height):
    picture = decode(png)
    assert picture.shape == pytest.approx((height * 150, width * 150, 3), abs=0.51)
    assert Image.open(io.BytesIO(png)).info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert 0.001 < (picture < 200).any(axis=2).mean() < 0.8, "an empty or a filled picture"
    return picture


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(("side", "shown"), [(8, 64), (28, 56), (32, 64), (64, 64), (100, 100)])
def test_small_images_are_enlarged_by_whole_numbers(side, shown):
    png = figures.image_grid(np.zeros((4, 1, side, side), int), levels=2)
    assert decode(png).shape == (2 * shown + 6, 2 * shown + 6, 3)


def test_every_pixel_of_a_grid_is_where_and_what_it_should_be():
    picture = decode(figures.image_grid(DIGITS, levels=17, columns=4, scale=3))
    assert picture.shape == (2 * 26 + 2, 4 * 26 + 2, 3)
    for index in range(6):
        shown = cell(picture, *divmod(index, 4), 24)[1::3, 1::3]
        expected = np.rint(DIGITS[index, 0] * 255 / 16)
        assert (shown == expected[:, :, None]).all()
    assert (cell(picture, 1, 3, 24) == 232).all(), "an empty cell is not a sample"
    assert (picture[:2] == 232).all()
    assert (picture[:, 26:28] == 232).all()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_black_is_zero_and_white_is_the_last_level(levels):
    images = np.zeros((2, 1, 8, 8), int)
    images[1] = levels - 1
    picture = decode(figures.image_grid(images, levels=levels))
    assert (cell(picture, 0, 0, 64) == 0).all()
    assert (cell(picture, 0, 1, 64) == 255).all()


def test_channels_are_red_green_blue():
    images = np.zeros((3, 3, 4, 4), int)
    images[range(3), range(3)] = 255
    picture = decode(figures.image_grid(images, levels=256, columns=3))
    for channel in range(3):
        assert (cell(picture, 0, channel, 64)[32, 32] == 255 * np.eye(3, dtype=int)[channel]).all()


def test_images_need_not_be_square_nor_integer_typed():
    images = np.full((1, 1, 4, 6), 3.0, np.float32)
    assert decode(figures.image_grid(images, levels=4)).shape == (4 * 10 + 4, 6 * 10 + 4, 3)


@pytest.mark.parametrize(
    ("images", "levels", "says"),
    [
        (np.zeros((2, 2, 8, 8)), 2, r"\(2, 2, 8, 8\)"),
        (np.zeros((8, 8)), 2, "N, 1 or 3, H, W"),
        (np.zeros((0, 1, 8, 8)), 2, "N, 1 or 3, H, W"),
        (np.full((1, 1, 8, 8), 17), 17, "0..16.* to 17"),
        (np.full((1, 1, 8, 8), -1), 17, "from -1"),
        (np.full((1, 1, 8, 8), NAN), 17, "nan"),
        (np.zeros((1, 1, 8, 8)), 1, "2 levels"),
    ],
)
def test_wrong_images_are_refused_in_words(images, levels, says):
    with pytest.raises(UsageError, match=says):
        figures.image_grid(images, levels=levels)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"scale": 0}])
def test_wrong_layout_is_refused(wrong):
    with pytest.raises(UsageError, match="at least 1"):
        figures.image_grid(DIGITS, levels=17, **wrong)


def test_temperatures_stand_side_by_side_under_their_titles():
    png = figures.temperatures({0.7: DIGITS[:4] * 0, 1.0: DIGITS[:4] * 0 + 16}, levels=17)
    picture, side = decode(png, "RGBA"), 2 * 66 + 2
    assert picture.shape == (24 + side, 2 * side + 20, 4)
    assert (cell(picture, 1, 1, 64, top=24)[32, 32] == [0, 0, 0, 255]).all()
    assert (cell(picture, 1, 1, 64, top=24, left=side + 20)[32, 32] == 255).all()
    ink = picture[:24, :, 3] > 0
    assert ink[:, :side].any()
    assert ink[:, side + 20 :].any()
    assert not ink[:, side : side + 20].any()


def test_a_long_title_widens_its_block():
    png = figures.blocks({"a title much wider than a single image": DIGITS[:1], "b": DIGITS[:2]}, levels=17)
    assert decode(png).shape[1] > 68 + 20 + 134
    with pytest.raises(UsageError, match="at least one group"):
        figures.blocks({}, levels=17)


def test_strips_keep_rows_and_columns():
    rows = np.arange(6).reshape(2, 3, 1, 1, 1) * np.ones((1, 1, 1, 8, 8), int)
    picture = decode(figures.strips(rows, levels=6))
    assert picture.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    assert [[cell(picture, r, k, 64)[32, 32, 0] for k in range(3)] for r in range(2)] == [[0, 51, 102], [153, 204, 255]]


def test_titles_of_strips_get_the_room_they_need():
    rows = np.full((2, 2, 3, 8, 8), 255)
    titles = ["reconstruction", "original"]
    plain = decode(figures.strips(rows, levels=256), "RGBA")
    above = decode(figures.strips(rows, levels=256, column_titles=titles), "RGBA")
    beside = decode(figures.strips(rows, levels=256, row_titles=titles), "RGBA")
    assert (above.shape[1] - 6) % (2 * 8) == 0, "cells stay whole multiples of a pixel"
    assert above.shape[1] > plain.shape[1]
    assert beside.shape[0] == plain.shape[0]
    left = beside.shape[1] - plain.shape[1]
    assert (cell(beside, 1, 1, 64, left=left) == 255).all()
    assert (beside[:67, :left, 3] > 0).any()
    assert (beside[67:, :left, 3] > 0).any()


def test_titles_stand_over_their_columns():
    titles = {"column_titles": ["mm", "mm"], "row_titles": ["a much longer title"]}
    picture = decode(figures.strips(np.zeros((1, 2, 1, 8, 8), int), levels=2, **titles), "RGBA")
    left = picture.shape[1] - (2 * 66 + 2)
    columns = np.flatnonzero((picture[:24, :, 3] > 0).any(axis=0))
    middle = columns[columns < left + 67].mean(), columns[columns > left + 67].mean()
    assert middle == pytest.approx((left + 2 + 32, left + 2 + 66 + 32), abs=2)


@pytest.mark.parametrize("titles", [{"column_titles": ["a"]}, {"row_titles": ["a", "b", "c"]}])
def test_titles_must_match_in_number(titles):
    with pytest.raises(UsageError, match="titles or none"):
        figures.strips(np.zeros((2, 2, 1, 8, 8), int), levels=2, **titles)


def test_strips_must_have_five_axes_none_empty_and_a_scale():
    with pytest.raises(UsageError, match="R, K, C, H, W"):
        figures.strips(DIGITS, levels=17)
    with pytest.raises(UsageError, match="N, 1 or 3, H, W"):
        figures.strips(np.zeros((0, 2, 1, 8, 8)), levels=17)
    with pytest.raises(UsageError, match="scale of at least 1"):
        figures.strips(DIGITS[None], levels=17, scale=0)


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize(
    "sigma",
    [
        np.exp(RNG.normal(size=192)),
        np.ones(192),
        np.zeros(192),
        np.where(np.arange(192) < 8, np.resize([0.0, INF, NAN, -1.0], 192), 0.5),
        np.geomspace(1e-30, 1e30, 192).astype(np.float32),
    ],
)
def test_spectrum_draws_whatever_a_scale_layer_learned(sigma):
    assert_plot(figures.spectrum(sigma), 4.6, 2.9)
    assert_plot(figures.spectrum(sigma, shape=(3, 8, 8)), 6.6, 2.9)
    assert figures.spectrum(sigma, shape=(192,)) == figures.spectrum(sigma)


def test_spectrum_of_one_dimension_and_of_a_wrong_shape():
    assert_plot(figures.spectrum(np.array([2.0])), 4.6, 2.9)
    with pytest.raises(UsageError, match="filling"):
        figures.spectrum(np.ones(5), shape=(1, 2, 2))
    with pytest.raises(UsageError, match="filling"):
        figures.spectrum(np.ones((2, 2)))


def test_a_spectrum_falls_from_left_to_right():
    curve = np.argwhere(near(decode(figures.spectrum(np.geomspace(0.01, 1, 200))), style.ACCENT))
    left, right = (curve[curve[:, 1] < 250], curve[curve[:, 1] > 550])
    assert left[:, 0].max() < right[:, 0].min()


def test_the_map_of_a_spectrum_shows_the_large_scale_where_it_is():
    sigma = np.full((1, 4, 4), 0.1)
    sigma[0, 0, 3] = 10.0
    picture = decode(figures.spectrum(sigma.ravel(), shape=(1, 4, 4)))
    dark = np.argwhere(near(picture[30:, 570:905], "#10264a", 30))
    assert len(dark) > 5000
    assert dark[:, 0].max() < 120, "row 0 is on top"


def records(best):
    losses = [3 + abs(epoch - best) / 10 for epoch in range(11)]
    return [{"step": 10 * e, "epoch": e, "train": loss - 0.5, "validation": loss} for e, loss in enumerate(losses)]


def best_column(png):
    """The column of the picture that holds most of the validation's colour: the line through the best epoch."""
    return near(decode(png), style.WARM, 40).sum(axis=0).argmax()


def test_the_best_epoch_is_marked_where_it_was():
    columns = [best_column(figures.learning_curve(records(best))) for best in (2, 5, 8)]
    assert columns[2] - columns[1] == pytest.approx(columns[1] - columns[0], abs=3)
    assert columns[1] - columns[0] > 100


@pytest.mark.parametrize(
    "history",
    [
        records(5)[:1],
        [{"step": 1, "train": 2.0}],
        [{"step": 1, "train": 2.0}, {"step": 2, "epoch": 0, "train": None, "validation": 3.0}],
        [{"step": s, "train": 2.0, "validation": 2.0} for s in range(500)],
        [{"step": 1, "train": NAN}, {"step": 2, "train": 4.0, "validation": INF}],
        [{"step": 1, "train": NAN}],
        [],
    ],
)
def test_learning_curves_of_odd_histories(history):
    assert_plot(figures.learning_curve(history), 5.6, 3.1)


def test_a_learning_curve_finds_its_values_under_other_keys():
    renamed = [{"step": r["step"], "epoch": r["epoch"], "a": r["train"], "b": r["validation"]} for r in records(5)]
    assert figures.learning_curve(renamed, train="a", validation="b") == figures.learning_curve(records(5))


def test_a_first_loss_far_above_the_others_does_not_flatten_them():
    usual = [{"step": s, "train": 3 + 0.01 * (s % 7)} for s in range(100)]
    spiked = [{"step": 0, "train": 1000.0}, *usual[1:]]
    pictures = [decode(figures.learning_curve(history))[:, 300:] for history in (usual, spiked)]
    heights = [np.ptp(np.argwhere(near(picture, style.ACCENT)[60:])[:, 0]) for picture in pictures]
    assert heights[1] > 0.3 * heights[0] > 30


def test_bars_are_as_long_as_their_values():
    picture = assert_plot(figures.comparison({"this flow": (1.5, 0.0), "Gaussian": (3.0, 0.0)}), 5.6, 1.46)
    this = near(picture, style.ACCENT).sum(axis=1).max()
    other = near(picture, "#b9c2ce").sum(axis=1).max()
    assert other == pytest.approx(2 * this, abs=8)
    rows = [np.argwhere(near(picture, colour))[:, 0].mean() for colour in (style.ACCENT, "#b9c2ce")]
    assert rows[0] < rows[1], "the first name is on top"


@pytest.mark.parametrize(
    "value", [(-1.2, 0.3), (0.0, 0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (2.0, NAN), (2.0, INF)]
)
def test_comparisons_of_odd_values(value):
    assert_plot(figures.comparison({"this flow": value}), 5.6, 1.08)
    assert_plot(figures.comparison({"this flow": value, "Gaussian": (2.0, 0.1)}), 5.6, 1.46)


def test_nothing_to_compare_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        figures.comparison({})


# ---------------------------------------------------------------- the plane

DOT = "#5f87b6"  # the accent as a dot of a cloud lays it on paper
SQUARE = (-2.0, 2.0, -2.0, 2.0)


def gaussian(n=40):
    axis = (np.arange(n) + 0.5) / n * 8 - 4
    return -0.5 * (axis[:, None] ** 2 + axis**2) - math.log(2 * math.pi)


@pytest.mark.parametrize(
    "log_prob",
    [gaussian(), np.full((3, 5), -2.0), np.full((4, 4), -INF), np.full((4, 4), NAN), np.full((1, 1), 900.0)],
)
def test_density_of_ordinary_and_odd_grids(log_prob):
    assert_plot(figures.density(log_prob, extent=SQUARE, samples=RNG.normal(size=(50, 2)) * 3), 4.5, 3.85)


def test_density_puts_the_first_row_at_the_bottom():
    log_prob = np.full((10, 10), -50.0)
    log_prob[0] = 0.0
    picture = decode(figures.density(log_prob, extent=SQUARE))[40:, 100:450]
    rows = np.argwhere(near(picture, "#10264a", 25))[:, 0]
    assert len(rows) > 1000
    assert rows.min() > 400


@pytest.mark.parametrize("broken", [NAN, INF])
def test_density_shows_cells_without_one_in_their_own_colour(broken):
    log_prob = gaussian()
    whole = decode(figures.density(log_prob, extent=SQUARE))
    log_prob[:10, :10] = broken
    assert near(whole, "#c9b8b0", 2).sum() == 0
    assert near(decode(figures.density(log_prob, extent=SQUARE)), "#c9b8b0", 2).sum() > 1000


def test_density_tells_the_mass_inside_the_frame():
    heat = np.ma.masked_invalid(np.exp(gaussian()))
    assert mass(heat, (-4, 4, -4, 4), 0) == "mass inside the frame 1"
    assert mass(heat / 2, (-4, 4, -4, 4), 3) == "mass inside the frame 0.5; 3 cells not finite"


def test_densities_of_one_scale_have_one_colour_for_one_density():
    flat, steep = np.full((8, 8), -3.0), np.full((8, 8), -2.0)
    most = figures.brightest_of([flat, steep, np.full((8, 8), NAN)])
    assert most == pytest.approx(math.exp(-2))
    apart = [decode(figures.density(one, extent=SQUARE)) for one in (flat, steep)]
    assert near(apart[0], "#10264a", 25).sum() > 10_000
    together = [decode(figures.density(one, extent=SQUARE, brightest=most)) for one in (flat, steep)]
    assert near(together[0], "#10264a", 25).sum() < 5000
    assert np.array_equal(together[1], apart[1])


def test_density_refuses_wrong_grids():
    with pytest.raises(UsageError, match="H, W"):
        figures.density(np.zeros(4), extent=SQUARE)
    with pytest.raises(UsageError, match="not empty"):
        figures.density(np.zeros((4, 4)), extent=(1, 1, 0, 1))
    with pytest.raises(UsageError, match="2 column names"):
        figures.density(np.zeros((4, 4)), extent=SQUARE, columns=["a"])
    with pytest.raises(UsageError, match=r"\(N, 2\)"):
        figures.density(np.zeros((4, 4)), extent=SQUARE, samples=np.zeros((4, 3)))


def test_a_regular_grid_is_regular():
    grid = figures.regular_grid((-1, 1, 0, 4), lines=5, points=9)
    assert grid.shape == (10, 9, 2)
    assert np.ptp(grid[:5, :, 1], axis=1).max() == 0
    assert np.ptp(grid[5:, :, 0], axis=1).max() == 0
    assert grid[:5, 0, 1].tolist() == [0, 1, 2, 3, 4]
    assert grid[5:, 0, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert grid.min(axis=(0, 1)).tolist() == [-1, 0]
    assert grid.max(axis=(0, 1)).tolist() == [1, 4]


@pytest.mark.parametrize("odd", [0.0, NAN, INF, 1e30])
def test_warped_grids_of_ordinary_and_odd_maps(odd):
    before = figures.regular_grid(SQUARE, lines=5, points=21)
    after = before * 2 + 1
    after[0, :3] = odd
    assert_plot(figures.warped_grid(before, after), 6.6, 3.6)


def test_a_grid_mapped_to_nothing_finite_or_to_a_point_is_drawn():
    before = figures.regular_grid(SQUARE, lines=3, points=5)
    for after in (before * NAN, before * 0):
        assert_plot(figures.warped_grid(before, after), 6.6, 3.6)
    with pytest.raises(UsageError, match=r"\(L, P, 2\)"):
        figures.warped_grid(before, before[1:])


@pytest.mark.parametrize(("panels", "size"), [(1, (3.2, 3.4)), (2, (3.5, 2.0)), (4, (7.0, 2.0)), (7, (7.0, 4.0))])
def test_layers_have_a_panel_each(panels, size):
    points = RNG.normal(size=(30, 2))
    png = figures.layers([points * (k + 1) for k in range(panels)], [f"layer {k}" for k in range(panels)])
    assert_plot(png, *size)


def test_layers_of_odd_clouds():
    points = RNG.normal(size=(300, 2))
    exploded = points.copy()
    exploded[0], exploded[1] = 1e30, NAN
    png = figures.layers([points, exploded, points * 0, points * NAN], ["a", "b", "c", "d"])
    picture = assert_plot(png, 7.0, 2.0)
    spread = [(picture[60:200, x : x + 160] < 200).any(axis=2).mean() for x in (60, 320)]
    assert spread[1] > 0.5 * spread[0], "one exploded point must not squeeze the others"
    assert_plot(figures.layers([points[:1]], ["one point"]), 3.2, 3.4)


@pytest.mark.parametrize(
    ("clouds", "names"),
    [
        ([], []),
        ([np.zeros((3, 2))], []),
        ([np.zeros((3, 2)), np.zeros((4, 2))], ["a", "b"]),
        ([np.zeros((3, 3))], ["a"]),
    ],
)
def test_layers_refuse_what_does_not_fit(clouds, names):
    with pytest.raises(UsageError, match="expected"):
        figures.layers(clouds, names)


@pytest.mark.parametrize(("features", "side"), [(1, 3.0), (3, 5.1), (5, 8.5), (9, 8.5)])
def test_tables_get_a_corner_plot_of_at_most_five_columns(features, side):
    points = RNG.normal(size=(200, features))
    points[0] = NAN
    points[:, -1] = 2.0
    names = [f"a long name of column {d}" for d in range(features)]
    assert_plot(figures.scatter(points, columns=names, reference=points[:20] + 1), side, side)


def test_a_table_of_two_columns_is_a_plane():
    points = np.stack([np.cos(np.linspace(0, 6.28, 100)), np.sin(np.linspace(0, 6.28, 100))], axis=1)
    size = decode(figures.scatter(points)).shape
    assert size[:2] == pytest.approx((3.6 * 150, 3.77 * 150), abs=2)
    assert_plot(figures.scatter(points[:1] * 0 + 1, columns=["width", "height"]), 3.77, 3.6)


def test_a_reference_stands_left_of_the_samples_and_frames_both():
    data = RNG.uniform(-1, 1, size=(500, 2))
    samples = np.concatenate([data, [[1e9, 0.0], [NAN, 0.0]]])
    plain, wild = (decode(figures.scatter(table, reference=data)) for table in (data, samples))
    assert plain.shape == wild.shape
    half = plain.shape[1] // 2
    for picture in (plain, wild):
        assert near(picture[:, :half], "#e3a06e", 25).sum() > 1000, "the reference"
        assert near(picture[:, half + 20 :], DOT, 20).sum() > 1000, "the samples"
        assert near(picture[:, : half - 20], DOT, 20).sum() == 0
    assert (plain[:, :half] == wild[:, :half]).all(), "far samples squeeze nothing"
    assert (plain != wild).any(), "but are counted"
    alone = figures.scatter(data)
    assert figures.scatter(data, reference=data[:0]) == alone != figures.scatter(data, reference=data * NAN)


def test_a_corner_plot_shows_both_tables_in_their_colours_and_counts_those_outside():
    data = RNG.normal(size=(1000, 3)) * [20, 1e3, 1e-4] + [300, 1e5, 3e-4]
    samples = data[::-1].copy()
    usual = decode(figures.scatter(samples, reference=data))
    samples[:5] *= 100
    picture = decode(figures.scatter(samples, reference=data))
    for colour in (style.ACCENT, style.WARM):
        assert near(picture, colour, 40).sum() > 300
    differ = (picture != usual).any(axis=2)
    assert differ[:150, 400:].any(), "the legend says how many are outside"


@pytest.mark.parametrize(
    ("low", "high", "texts", "unit"),
    [
        (-1.1, 1.1, ["−1", "0", "1"], ""),
        (240.0, 350.0, ["250", "300", "350"], ""),
        (94_000.0, 106_000.0, ["0.95", "1.00", "1.05"], "(×10⁵)"),
        (0.0, 7.4e-4, ["0", "5"], "(×10⁻⁴)"),
        (0.0, 0.0011, ["0", "1"], "(×10⁻³)"),
        (1.7e9 - 12, 1.7e9 + 12, ["0", "10", "20"], "− 1699999990"),
        (-1e30, 1e30, ["−1", "0", "1"], "(×10³⁰)"),
    ],
)
def test_ticks_are_few_and_short(low, high, texts, unit):
    assert ticks(low, high, at_most=3)[1:] == (texts, unit)


@pytest.mark.parametrize("room", [0.3, 0.6, 1.2, 3.0])
def test_ticks_fit_their_room_down_to_two(room):
    for low, high in ((0.9431, 1.0522), (8e4, 1.2e5), (1e-4, 2e-4), (-123.0, 4567.0)):
        places, texts, _ = ticks(low, high, at_most=7, room=room)
        assert len(places) <= 3 or sum(map(len, texts)) * 0.07 < room


@pytest.mark.parametrize(("low", "high"), [(-1e300, 1e300), (1e-300, 2e-300), (1e17, 1e17 + 64), (-0.0, 5e-12)])
def test_ticks_of_odd_limits(low, high):
    places, texts, _ = ticks(low, high, at_most=3)
    assert len(places) == len(texts) <= 3
    assert max(map(len, texts), default=0) <= 8


def test_units_are_equal_on_both_axes():
    picture = decode(figures.scatter(np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])))
    dots = np.argwhere(near(picture, DOT, 20))
    assert np.ptp(dots[:, 0]) == pytest.approx(np.ptp(dots[:, 1]), abs=3)


@pytest.mark.parametrize(
    ("points", "columns", "reference"),
    [
        (np.zeros(3), [], None),
        (np.zeros((0, 2)), [], None),
        (np.zeros((3, 2)), ["a"], None),
        (np.zeros((3, 2)), [], np.zeros((3, 3))),
    ],
)
def test_wrong_tables_are_refused(points, columns, reference):
    with pytest.raises(UsageError, match="expected"):
        figures.scatter(points, columns=columns, reference=reference)


def test_a_frame_is_square_around_tall_and_wide_clouds():
    for points in (np.array([[0.0, -5.0], [1.0, 5.0]]), np.array([[-5.0, 0.0], [5.0, 1.0]])):
        extent = plane.framed(points)
        assert extent[1] - extent[0] == pytest.approx(extent[3] - extent[2])
        assert plane.inside(points, extent).all()
        axes = Figure().subplots()
        plane.set_frame(axes, extent, 3.0)
        assert (*axes.get_xlim(), *axes.get_ylim()) == pytest.approx(extent)


def test_columns_of_quite_different_widths_fill_a_square_each_in_its_unit():
    extent = plane.framed(np.array([[280.0, 9e4], [320.0, 1.1e5]]))
    assert extent == pytest.approx((278, 322, 8.9e4, 1.11e5))
    assert plane.box(extent, 3.0) == (3.0, 3.0)
    assert plane.box((0, 4, 0, 2), 3.0) == (3.0, 1.5)
    assert plane.framed(np.array([[0.0, 0.0], [4.0, 1.0]]), flattest=0.5) == pytest.approx((-0.2, 4.2, -0.6, 1.6))


def test_layers_of_like_size_that_follow_each_other_share_a_frame():
    points = RNG.uniform(-1, 1, size=(500, 2))
    first, second, third, fourth = shared_frames([points, points * 1.2, points * 9, points * 8])
    assert first == second
    assert third == fourth
    assert first[1] < third[1]
    assert first == pytest.approx(plane.framed(points * 1.2))


def test_points_keep_the_colour_of_the_angle_they_began_at():
    ring = np.stack([np.cos(np.linspace(0, 6, 40)), np.sin(np.linspace(0, 6, 40))], axis=1)
    assert plane.hues(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])) % 1 == pytest.approx(
        [0.5, 0.75, 0.0, 0.25]
    )
    left, right = np.split(decode(figures.layers([ring, -ring], ["a", "b"])), [262], axis=1)
    tops = [half[:150][(half[:150].max(axis=2) - half[:150].min(axis=2)) > 60].mean(axis=0) for half in (left, right)]
    assert np.abs(tops[0] - tops[1]).max() > 40, "after half a turn the other colours are on top"


def test_limits_hold_all_values_but_far_outliers():
    values = np.linspace(-1, 1, 1001)
    assert plane.span(values) == pytest.approx((-1.1, 1.1))
    assert plane.span(np.append(values, [1e30, -INF, NAN])) == pytest.approx((-1.1, 1.1))
    assert plane.span(np.append(values, 1.5)) == pytest.approx((-1.125, 1.625))
    assert plane.span(np.array([3.0])) == pytest.approx((1.5, 4.5))
    assert plane.span(np.array([NAN])) == (-1.0, 1.0)


def test_figures_are_reproducible_and_leave_no_trace():
    before = dict(matplotlib.rcParams)
    points = RNG.normal(size=(50, 2))
    assert figures.scatter(points) == figures.scatter(points)
    assert dict(matplotlib.rcParams) == before


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not close in order."""

    VOID = ("meta", "link", "img")

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


GRID = figures.image_grid(DIGITS, levels=17)
PLOT = figures.comparison({"this flow": (1.0, 0.1)})
NASTY = "<script>alert(\"1\")</script> & {body} {0} 'quoted'"


def sample_page():
    pictures = [Picture(png=GRID, caption="Samples"), Picture(png=PLOT, caption=NASTY)]
    return page(
        "a-run",
        {"model": "glow", "bits/dim": 2.5, "nasty": NASTY, NASTY: 1},
        [
            Section(title="Samples", text="First.\n\nSecond.", pictures=pictures),
            Section(title=NASTY, text=NASTY),
            Section(title="Reproduce", code="longflow train glow\n  # " + NASTY),
        ],
        lead=NASTY,
        highlights={"bits/dim": NASTY},
    )


def test_the_page_is_well_formed_and_says_what_it_was_told():
    read = Reader(sample_page())
    assert read.text["title"] == read.text["h1"] == ["a-run"]
    assert read.text["h2"] == ["Samples", NASTY, "Reproduce"]
    assert read.text["p"][-3:] == ["First.", "Second.", NASTY]
    assert read.text["dt"] == ["bits/dim", "model", "bits/dim", "nasty", NASTY]
    assert read.text["dd"] == [NASTY, "glow", "2.5", NASTY, "1"]
    assert read.text["code"] == ["longflow train glow\n  # " + NASTY]
    assert read.all("html") == [{"lang": "en"}]
    targets = {"#" + section["id"] for section in read.all("section")}
    assert [link["href"] for link in read.all("a")] == sorted(targets)


def test_nothing_in_a_page_can_run_or_be_fetched():
    html = sample_page()
    read = Reader(html)
    assert "script" not in dict(read.tags)
    assert not re.search(r"https?://|@import|url\(", html)
    sources = [a[key] for _, a in read.tags for key in ("src", "href") if key in a]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert any("default-src 'none'" in meta.get("content", "") for meta in read.all("meta"))


def test_pictures_are_inside_the_page_at_their_size():
    read = Reader(sample_page())
    grid, plot = read.all("img")
    assert base64.b64decode(grid["src"].split(",")[1]) == GRID
    assert base64.b64decode(plot["src"].split(",")[1]) == PLOT
    assert [figure["class"] for figure in read.all("figure")] == ["pixels", "plot"]
    assert (grid["width"], grid["height"]) == ("200", "134")
    assert (plot["width"], plot["height"]) == ("538", "104")
    assert [grid["alt"], plot["alt"]] == read.text["figcaption"] == ["Samples", NASTY]


def test_the_smallest_page_is_well_formed():
    read = Reader(page("empty", {}, []))
    assert read.text["h1"] == ["empty"]
    assert not read.all("nav")
    assert not read.all("dl")
