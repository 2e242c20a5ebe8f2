"""Pictures of images: the pixels that are shown, and scrolling."""
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backend_bases import MouseEvent

from elektronn2.utils.plotting import embedfilters, plot_trainingtarget, scroll_plot


@pytest.fixture
def close_windows(monkeypatch):
    pyplot.switch_backend("agg")
    monkeypatch.delenv("DISPLAY", raising=False)
    yield
    pyplot.close("all")


def panels(figure):
    return [ax.images[0].get_array() for ax in figure.axes]


def test_training_target(rng):
    img, lab = rng.random((31, 40)), rng.integers(0, 2, (11, 14))
    image, target, overlay = panels(plot_trainingtarget(img, lab))
    np.testing.assert_array_equal(image, img)
    np.testing.assert_array_equal(target, lab)
    np.testing.assert_allclose(overlay, 0.75 * img[10:21, 13:27] + 0.25 * (1 - lab))


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_training_target_with_strides(rng, stride):
    lab = rng.integers(0, 2, (5, 6))
    img = rng.random((4 * stride + 1 + 10, 5 * stride + 1 + 8))
    figure = plot_trainingtarget(img, lab, stride)
    part = img[5:-5, 4:-4]
    overlay = panels(figure)[2]
    assert overlay.shape == part.shape
    np.testing.assert_allclose(overlay[::stride, ::stride], 0.75 * part[::stride, ::stride] + 0.25 * (1 - lab))
    i, j = 2 * stride + 1, 3 * stride - 1  # one pixel beside that of lab[2, 3]
    if stride > 2:
        assert overlay[i, j] == pytest.approx(0.75 * part[i, j] + 0.25 * (1 - lab[2, 3]))
    frame, = figure.axes[0].patches
    assert frame.get_bbox().bounds == (3.5, 4.5, part.shape[1], part.shape[0])


def test_training_target_of_other_kinds(rng):
    img = rng.integers(0, 200, (9, 9), dtype=np.uint8)
    rgb = rng.random((9, 9, 3))
    image, target, overlay = panels(plot_trainingtarget(img, rgb))
    assert image.min() == 0 and image.max() == 1 and target.shape == overlay.shape == (9, 9, 3)
    np.testing.assert_allclose(overlay, 0.75 * np.asarray(image)[..., None] + 0.25 * (1 - rgb))
    _, target, overlay = panels(plot_trainingtarget(rgb, np.array([[-666, 0, 3]])))
    assert target.tolist() == [[0, 0, 1]] and overlay.shape == (1, 3, 3)
    plot_trainingtarget(np.full((3, 3), np.nan), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"\(5, 5\) pixels at stride 3 covers \(13, 13\) .* image has \(9, 9\)"):
        plot_trainingtarget(rgb, np.zeros((5, 5)), 3)


def test_filters_side_by_side(rng):
    w = rng.normal(size=(2, 3, 4, 5))
    image = embedfilters(w, border_width=2, output_ratio=0.5)  # 2 rows of 3: 10 x 19
    assert image.shape == (10, 19)
    for n in range(6):
        y, x = n // 3 * 6, n % 3 * 7
        np.testing.assert_array_equal(image[y:y + 4, x:x + 5], w[n // 3, n % 3])
    assert np.all(image[4:6] == w.min()) and np.all(image[:, 5:7] == w.min())

    scaled = embedfilters(np.stack([w[0, 0] * 9, w[0, 0] + 7, np.ones((4, 5))]), normalize=True, border_width=0,
                          output_ratio=9)
    assert scaled.shape == (12, 5)
    np.testing.assert_allclose(scaled[:4], scaled[4:8])
    assert scaled[:4].min() == 0 and scaled[:4].max() == 1 and np.all(scaled[8:] == 0)

    colour = embedfilters(w.swapaxes(0, 1), rgb_axis=0, border_width=1)  # 2 filters in colour
    assert colour.shape in ((4, 11, 3), (9, 5, 3))
    np.testing.assert_array_equal(colour[:4, :5], np.moveaxis(w[0], 0, -1))
    with pytest.raises(ValueError, match="rgb_axis 0 must have length 3"):
        embedfilters(w, rgb_axis=0)
    with pytest.raises(ValueError, match=r"shape \(..., h, w\)"):
        embedfilters(w[0, 0, 0])


def test_scrolling(close_windows, rng):
    raw, seg = rng.random((7, 20, 30)), rng.integers(0, 1000, (7, 20, 30))
    viewer = scroll_plot([raw, seg], ["raw", "seg ids"])
    left, right = viewer.figure.axes

    def scroll(button):
        canvas = viewer.figure.canvas
        canvas.callbacks.process("scroll_event", MouseEvent("scroll_event", canvas, 1, 1, button))
    assert viewer.z == 3 and left.get_title() == "raw z=3"
    for button, z in [("up", 4), ("up", 5), ("up", 6), ("up", 6), ("down", 5)]:
        scroll(button)
        assert viewer.z == z and left.get_title() == f"raw z={z}" and right.get_title() == f"seg ids z={z}"
        np.testing.assert_array_equal(left.images[0].get_array(), raw[z])
    shown = right.images[0].get_array()
    colours = right.images[0].to_rgba(shown)[..., :3]
    assert np.all((colours == 0).all(-1) == (seg[5] == 0))  # 0 is black, and nothing else
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 100
    assert left.images[0].get_clim() == (raw.min(), raw.max())


def test_windows_of_volumes(close_windows, rng):
    assert scroll_plot(rng.random((3, 4, 5, 3)), "colour", init_z=9).z == 2
    assert len(scroll_plot([rng.random((3, 4, 5))] * 4).figure.axes) == 4
    with pytest.raises(ValueError, match="1, 2 or 4 volumes, each with a name; got 3 volumes and 3 names"):
        scroll_plot([np.zeros((2, 3, 3))] * 3)
    with pytest.raises(ValueError, match="same number of sections"):
        scroll_plot([np.zeros((2, 3, 3)), np.zeros((3, 3, 3))])
