"""Quality: what the measures are, against plain loops; what they say of phantoms, whole and spoilt; which flags they raise."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.anatomy import KEYS, surface_names
from octedge.geometry import labels_from_surfaces
from octedge.phantom import LOOKS, Phantom
from octedge.quality import EDGE, MEASURES, RULES, FrameQuality, Gauge, certainty, flags, frame_quality, measures
from octedge.scan import Spacing

LOOK = replace(LOOKS["spectralis"], columns=256)
PHANTOM = Phantom(LOOK, 3, 5, fluid=False)
TRUTH = [PHANTOM.bscan(index) for index in range(3)]
GAUGE = Gauge.of(KEYS, PHANTOM.spacing)
BRUCH = 11  # the surface below the retina
SURE = 0.95
GOOD = FrameQuality(signal=0.9, greys=0.9, saturated=0.0, missing=0.0, clipped=0.0, jumps=0.0, certainty=SURE, checksum=0.0)


def measured(image, labels, surfaces, gauge=GAUGE):
    return frame_quality(image, labels, surfaces, np.full(image.shape[1], SURE), gauge)


def names(*frames):
    return {flag.name for flag in flags(frames)}


def true_quality(bscan, image=None):
    """The measures of a phantom whose answer is the truth."""
    return measured(bscan.image if image is None else image, bscan.labels, bscan.surfaces)


def moved(bscan, down):
    """The measures where each column (W,) of the phantom lies `down` rows further down."""
    rows = len(bscan.image)
    row = np.arange(rows)[:, None] - down
    inside = (row >= 0) & (row < rows)
    image = np.where(inside, np.take_along_axis(bscan.image, np.clip(row, 0, rows - 1), axis=0), 20).astype(np.uint8)
    there = bscan.surfaces < rows  # what lies below the image does not come into it
    surfaces = np.where(there, np.clip(bscan.surfaces + down, 0, rows), rows).astype(np.float32)
    return measured(image, labels_from_surfaces(surfaces, rows), surfaces)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("field", ["macula", "disc", "wide"])
def test_no_phantom_raises_a_flag_where_the_answer_is_the_truth(look, field):
    phantom = Phantom(replace(LOOKS[look], columns=300), 3, 7, field=field)
    gauge = Gauge.of(KEYS, phantom.spacing)
    frames = [measured(each.image, each.labels, each.surfaces, gauge) for each in map(phantom.bscan, range(3))]
    assert [flag.text for flag in flags(frames)] == []


def test_a_blink_is_told_from_the_scans_other_b_scans():
    dark = TRUTH[1].image[:40].ravel()
    noise = np.random.default_rng(0).choice(dark, TRUTH[1].image.shape)
    frames = [true_quality(TRUTH[0]), true_quality(TRUTH[1], noise), true_quality(TRUTH[2])]
    found = {flag.name: flag for flag in flags(frames)}
    assert found["signal drop"].frames == (1,)
    assert "blink" in found["signal drop"].text


def test_a_lost_b_scan_is_flagged_whether_black_or_the_one_before():
    good = true_quality(TRUTH[0])
    black = true_quality(TRUTH[1], np.zeros_like(TRUTH[1].image))
    assert {"few greys", "weak signal"} <= names(good, black, true_quality(TRUTH[2]))
    again = {flag.name: flag.frames for flag in flags([good, true_quality(TRUTH[0], TRUTH[0].image.copy()), true_quality(TRUTH[2])])}
    assert again == {"repeated": (1,)}
    one_pixel = TRUTH[0].image.copy()
    one_pixel[0, 0] ^= 1
    assert names(good, true_quality(TRUTH[0], one_pixel)) == set()


def test_a_saturated_b_scan_is_flagged():
    assert "saturated" in names(true_quality(TRUTH[0], np.minimum(TRUTH[0].image.astype(int) * 4, 255).astype(np.uint8)))


def test_a_b_scan_of_little_contrast_is_flagged():
    assert names(true_quality(TRUTH[0], TRUTH[0].image // 8)) == {"few greys"}
    noise = np.random.default_rng(0).normal(0, 80, TRUTH[0].image.shape)
    drowned = np.clip(TRUTH[0].image * 0.2 + 100 + noise, 0, 255).astype(np.uint8)
    assert names(true_quality(TRUTH[0], drowned)) == {"weak signal"}


@pytest.mark.parametrize("end", ["top", "bottom"])
def test_a_retina_partly_out_of_the_image_is_clipped_and_one_far_out_is_none(end):
    bscan, rows = TRUTH[0], LOOK.rows
    if end == "top":
        near, partly = -int(bscan.surfaces[0].min()) + EDGE + 1, -int(np.median(bscan.surfaces[0])) - 4
    else:
        near, partly = rows - EDGE - 2 - int(bscan.surfaces[BRUCH].max()), rows - int(np.median(bscan.surfaces[BRUCH])) + 4
    assert not {"clipped", "no retina"} & names(moved(bscan, near))
    assert "clipped" in names(moved(bscan, partly))
    assert {"no retina", "weak signal"} <= names(moved(bscan, -rows if end == "top" else rows))


@pytest.mark.parametrize("down", [-12, 12])
def test_an_eye_that_moves_within_a_b_scan_is_flagged(down):
    columns = np.arange(LOOK.columns)
    assert "jumps" not in names(moved(TRUTH[0], np.where(columns < 100, 0, down // 4)))
    assert moved(TRUTH[0], np.where(columns < 100, 0, down)).jumps == 1
    assert names(moved(TRUTH[0], np.where(columns < 100, 0, down))) == {"jumps"}


# A rule -> measures that it alone objects to, the B-scan, and others that are just within its bound.
BREACHES = {
    "weak signal": ([replace(GOOD, signal=0.39)], 0, [replace(GOOD, signal=0.4)]),
    "signal drop": ([GOOD, GOOD, replace(GOOD, signal=0.53)], 2, [GOOD, GOOD, replace(GOOD, signal=0.55)]),
    "few greys": ([replace(GOOD, greys=0.24)], 0, [replace(GOOD, greys=0.25)]),
    "saturated": ([GOOD, replace(GOOD, saturated=0.11)], 1, [replace(GOOD, saturated=0.1)]),
    "no retina": ([replace(GOOD, missing=0.06)], 0, [replace(GOOD, missing=0.05)]),
    "clipped": ([replace(GOOD, clipped=0.03)], 0, [replace(GOOD, clipped=0.02)]),
    "jumps": ([replace(GOOD, jumps=1.0)], 0, [replace(GOOD, jumps=0.0)]),
    "repeated": ([GOOD, GOOD], 1, [replace(GOOD, checksum=1.0), GOOD, replace(GOOD, checksum=1.0)]),
    "unsure": ([GOOD, GOOD, replace(GOOD, certainty=0.79)], 2, [replace(GOOD, certainty=0.8)]),
}


def apart(frames, rule):
    """The same, with checksums that differ, unless they are what it is about."""
    return list(frames) if rule == "repeated" else [replace(each, checksum=float(number)) for number, each in enumerate(frames)]


def test_every_rule_has_its_breach():
    assert [rule.name for rule in RULES] == list(BREACHES)


@pytest.mark.parametrize("rule", BREACHES)
def test_a_rule_objects_to_what_is_out_of_its_bounds_and_to_nothing_else(rule):
    frames, worst, within = BREACHES[rule]
    (flag,) = flags(apart(frames, rule))
    assert (flag.name, flag.frames) == (rule, (worst,))
    assert flag.text.startswith(rule)
    assert flag.value < flag.threshold if "at least" in flag.text else flag.value > flag.threshold
    assert flags(apart(within, rule)) == ()


def test_a_flag_tells_the_worst_value_and_the_first_b_scans_counted_from_0():
    frames = apart([GOOD, *(replace(GOOD, greys=0.2 - index / 100) for index in range(12))], "few greys")
    (flag,) = flags(frames)
    assert (flag.value, flag.threshold, flag.frames) == (pytest.approx(0.09), 0.25, tuple(range(1, 13)))
    assert flag.text == (
        "few greys in 12 of 13 B-scans (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..., counted from 0): little of the grey range is used"
        " (greys 0.09, at least 0.25 is usual)"
    )
    (worst,) = flags(apart([replace(GOOD, jumps=1.0), replace(GOOD, jumps=3.0)], "jumps"))
    assert worst.value == 3
    (alone,) = flags(frames[-1:])
    assert alone.text == "few greys: little of the grey range is used (greys 0.09, at least 0.25 is usual)"


def test_b_scans_without_an_answer_raise_no_flag_and_hide_none():
    nothing = FrameQuality()
    assert flags([]) == flags([nothing] * 4) == ()
    assert [flag.frames for flag in flags([nothing, replace(GOOD, jumps=2.0), nothing])] == [(1,)]
    assert measures([nothing, GOOD]).shape == (2, len(MEASURES))
    assert measures([]).shape == (0, len(MEASURES))


@pytest.mark.parametrize("signals", [[0.9, 0.1], [0.9, 0.1, math.nan], [0.0, 0.0, 0.0, 0.0]])
def test_what_is_usual_is_not_told_from_two_b_scans_nor_from_none_with_a_signal(signals):
    assert "signal drop" not in names(*(replace(GOOD, signal=signal) for signal in signals))


# Small answers of four classes, one of them fluid: any surfaces in order, and greys that overlap.
CLASSES = ("vitreous", "nfl+gcl", "choroid", "fluid")
SMALL = replace(Gauge.of(CLASSES), jump=3.0)


@st.composite
def answers(draw, most=100):
    rows, columns = draw(st.integers(4, 24)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    surfaces = np.sort(rng.uniform(-0.2 * rows, 1.2 * rows, (2, columns)).clip(0, rows), axis=0).astype(np.float32)
    labels = labels_from_surfaces(surfaces, rows)
    labels[(labels == 1) & (rng.random(labels.shape) < 0.2)] = 3
    image = rng.integers(0, rng.integers(2, most), labels.shape) + labels * rng.integers(0, 50)
    return image.astype(np.uint8), labels, surfaces


def small(answer):
    image, labels, surfaces = answer
    return measured(image, labels, surfaces, SMALL)


def gcnr(image, labels):
    """1 - the area that the two histograms have in common, grey by grey."""
    retina, vitreous = image[(labels == 1) | (labels == 3)], image[labels == 0]
    if retina.size < image.size / 100:
        return 0.0
    if vitreous.size < image.size / 100:
        return math.nan
    return 1 - sum(min(np.mean(retina == grey), np.mean(vitreous == grey)) for grey in np.unique(image))


@settings(max_examples=60, deadline=None)
@given(answers())
def test_the_signal_is_the_gcnr_of_its_definition(answer):
    image, labels, _ = answer
    assert small(answer).signal == pytest.approx(gcnr(image, labels), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(answers(), st.integers(0, 2**32))
def test_the_signal_does_not_change_with_a_display_that_keeps_the_order_of_the_greys(answer, seed):
    image, labels, surfaces = answer
    table = np.sort(np.random.default_rng(seed).choice(256, int(image.max()) + 1, replace=False)).astype(np.uint8)
    changed = measured(table[image], labels, surfaces, SMALL)
    assert changed.signal == pytest.approx(small(answer).signal, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(answers())
def test_the_other_measures_are_what_a_loop_over_the_columns_counts(answer):
    image, _, (inner, outer) = answer
    rows, columns = image.shape
    found = small(answer)
    retina = [column for column in range(columns) if outer[column] > inner[column]]
    out = [column for column in retina if inner[column] < EDGE or outer[column] > rows - 1 - EDGE]
    far = [
        column
        for column in retina
        if column + 1 in retina and max(abs(float(line[column + 1] - line[column])) for line in (inner, outer)) > SMALL.jump
    ]
    assert found.missing == pytest.approx(1 - len(retina) / columns)
    assert found.clipped == pytest.approx(len(out) / columns)
    assert found.jumps == len(far)
    greys = sorted(image.ravel().tolist())
    dark, bright = (greys[max(math.ceil(share * len(greys)) - 1, 0)] for share in (0.001, 0.999))
    assert found.greys == pytest.approx((bright - dark) / 255)


def test_saturated_is_the_white_share_of_the_retina_alone():
    labels = np.repeat(np.array([0, 1, 3, 2], np.uint8), 5)[:, None]
    surfaces = np.array([[4.5], [14.5]], np.float32)
    image = np.full((20, 1), 254, np.uint8)
    image[[0, 6, 11, 19]] = 255  # two of them in the retina's ten rows, one of these fluid
    assert measured(image, labels, surfaces, SMALL).saturated == pytest.approx(0.2)


@st.composite
def scored(draw):
    """Log-probabilities (4, P, W) and labels (H, W)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, seen, columns = draw(st.integers(1, 40)), draw(st.integers(1, 60)), draw(st.integers(1, 9))
    probability = rng.dirichlet(np.ones(4), (seen, columns)).transpose(2, 0, 1)
    return np.log(probability).astype(np.float32), rng.integers(0, 4, (rows, columns), dtype=np.uint8)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_certainty_is_the_mean_probability_of_the_answer_in_every_eighth_row_of_the_retina(case):
    scores, labels = case
    rows, columns = labels.shape
    found = certainty(scores, labels, SMALL)
    for column in range(columns):
        given_ = [
            math.exp(scores[labels[row, column], int((row + 0.5) * scores.shape[1] / rows), column])
            for row in range(min(4, rows - 1), rows, 8)
            if labels[row, column] in (1, 3)
        ]
        assert found[column] == pytest.approx(np.mean(given_) if given_ else math.nan, rel=1e-5, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(scored(), st.integers(0, 9))
def test_certainty_of_a_column_depends_on_no_other(case, cut):
    scores, labels = case
    parts = [certainty(scores[..., part], labels[:, part], SMALL) for part in (slice(0, cut), slice(cut, None))]
    assert np.array_equal(np.concatenate(parts), certainty(scores, labels, SMALL), equal_nan=True)


@pytest.mark.parametrize(("score", "expected"), [(math.nan, 0), (-math.inf, 0), (math.inf, 1), (3e38, 1), (-1e9, 0), (0, 1)])
def test_certainty_is_a_probability_whatever_the_scores(score, expected):
    scores, labels = np.full((4, 16, 3), score, np.float32), np.ones((16, 3), np.uint8)
    assert certainty(scores, labels, SMALL).tolist() == [expected] * 3


def test_the_gauge_knows_merged_classes():
    classes = ("vitreous", "nfl+gcl+ipl", "inl", "rpe+choroid", "sclera", "disc", "fluid")
    gauge = Gauge.of(classes)
    places = {name: place for place, name in enumerate(surface_names(classes))}
    assert (gauge.inner, gauge.outer, gauge.disc) == (places["vitreous|nfl"], places["choroid|sclera"], places["sclera|disc"])
    assert (gauge.vitreous, gauge.retina) == ((0,), (1, 2, 3, 6))


@pytest.mark.parametrize("classes", [("nfl", "gcl+ipl"), ("nfl+gcl+ipl+inl", "disc"), ("vitreous+nfl", "gcl"), ("choroid", "sclera")])
def test_a_border_that_a_model_does_not_know_is_not_measured(classes):
    rows, columns = 40, 6
    surfaces = np.full((1, columns), 20.0, np.float32)
    image = np.random.default_rng(0).integers(0, 256, (rows, columns), dtype=np.uint8)
    found = measured(image, labels_from_surfaces(surfaces, rows), surfaces, Gauge.of(classes))
    assert (found.missing, found.clipped, found.jumps) == (0, 0, 0)


def test_a_class_that_is_part_retina_is_no_vitreous_to_compare_with():
    gauge = Gauge.of(("vitreous+nfl", "gcl"))
    assert (gauge.vitreous, gauge.retina) == ((), (0, 1))


def test_every_pixel_counts_for_the_checksum():
    answer = np.zeros((5, 4), np.uint8), np.zeros((5, 4), np.uint8), np.full((2, 4), 5, np.float32)
    found = {small(answer).checksum}
    for pixel in range(20):
        image = np.zeros(20, np.uint8)
        image[pixel] = 1
        found.add(small((image.reshape(5, 4), *answer[1:])).checksum)
    assert len(found) == 21


def test_columns_through_the_disc_need_no_retina_and_no_even_border():
    classes = ("vitreous", "nfl", "choroid", "disc")
    # Retina, nerve fibres on the nerve, the nerve alone, retina with a bit of nerve deep below it, nothing at all.
    inner = [10, 12, 36, 10, 40]
    surfaces = np.array([inner, [18, 36, 36, 18, 40], [40, 36, 36, 38, 40]], np.float32)
    image = np.zeros((40, 5), np.uint8)
    found = measured(image, labels_from_surfaces(surfaces, 40), surfaces, Gauge.of(classes))
    assert (found.missing, found.jumps) == (0.2, 0)
    nerve_deep = np.array([[10, 30], [18, 38], [38, 39]], np.float32)  # which excuses no jump above it
    assert measured(image[:, :2], labels_from_surfaces(nerve_deep, 40), nerve_deep, Gauge.of(classes)).jumps == 1


@pytest.mark.parametrize(
    ("spacing", "rows"), [(Spacing(0.004, 0.012), 8.0), (Spacing(0.002, 0.006), 10.0), (Spacing(0.004), 16.0), (Spacing(), 16.0)]
)
def test_how_far_a_border_may_jump_follows_from_the_scale(spacing, rows):
    assert Gauge.of(KEYS, spacing).jump == pytest.approx(rows)
