"""How networks, histories, plans and data sets look: one short line, and a notebook's HTML."""

from __future__ import annotations

import base64
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

import fastconv as fc
from fastconv import _html, nn
from fastconv.examples import Dataset, binary_cnn, digits_cnn, load_digits


def whole(text):
    """The text, if every tag in it is closed in its order and nothing is loaded."""

    class Tags(HTMLParser):
        open: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            assert not any(v and v.startswith(("http", "//")) for k, v in attrs if k == "src")
            if tag not in ("img", "path", "polyline", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Tags()
    parser.open = []
    parser.feed(re.sub(r"<(path|polyline)([^>]*)/>", r"<\1\2>", text))
    assert parser.open == []
    return text


def test_sequential():
    model = binary_cnn()
    assert repr(model) == "<Sequential binary_cnn: 5 layers, 20 parameters>"
    assert repr(nn.Sequential(nn.Flatten())) == "<Sequential: 1 layer, 0 parameters>"
    text = whole(model._repr_html_())
    assert "MaxPool" in text
    assert ">?<" in text
    model.forward(np.zeros((2, 8, 8, 1), np.float32))
    assert "(6, 6, 1)" in whole(model._repr_html_())
    assert "25962" in whole(digits_cnn()._repr_html_())
    assert "&lt;b&gt;" in nn.Sequential(nn.Flatten(), name="<b>")._repr_html_()


def test_history():
    assert repr(nn.History()) == "<History: no epoch>"
    assert "<svg" not in whole(nn.History()._repr_html_())
    rows = [{"epoch": k, "loss": 1 / k, "accuracy": 0.5, "val_loss": None} for k in (1, 2, 3)]
    history = nn.History(rows)
    assert repr(history) == "<History: 3 epochs, loss 0.3333, accuracy 0.5>"
    text = whole(history._repr_html_())
    assert text.count("<svg") == 2
    assert text.count("<circle") == 6
    assert "loss 0.3333, epoch 3" in text
    points = re.findall(r'<polyline points="([^"]+)"', text)[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert heights == sorted(heights)  # the loss falls: down the page
    spoilt = nn.History([{"epoch": 1, "loss": float("nan"), "accuracy": None}])
    assert "<circle" not in whole(spoilt._repr_html_())
    assert nn.History(rows) == nn.History([dict(row) for row in rows])


def test_plan():
    plan = fc.plan_conv((16, 20, 18, 8), (3, 3, 8, 4), "float32", padding="same")
    text = whole(plan._repr_html_())
    assert f"[{16 * 20 * 18} x 72] @ [72 x 4]" in text
    assert f"{plan.flops:,}" in text


def test_dataset():
    data = load_digits()
    assert repr(data) == "<Dataset: 1,438 training and 359 test images of 8x8x1, 10 classes>"
    text = whole(data._repr_html_())
    assert text.count("<img") == 10
    x, y = np.zeros((3, 4, 5, 3), np.float32), np.array([0, 0, 2])
    few = Dataset(x, y, x[:0], y[:0], 3, ("<a>", "b", "c"))
    text = whole(few._repr_html_())
    assert "&lt;a&gt;" in text
    assert text.count("<img") == 2
    assert few.classes == 3  # still a named tuple
    assert len(few) == 6


def test_images_are_pngs_of_their_pixels():
    pixels = np.arange(6.0).reshape(2, 3)
    data = base64.b64decode(re.search(r"base64,([^\"]+)", _html.grey_image(pixels, 30, "x"))[1])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    start = data.index(b"IDAT")
    rows = zlib.decompress(data[start + 4 : data.index(b"IEND") - 8])
    assert list(rows) == [0, 255, 204, 153, 0, 102, 51, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_curve_leaves_out_what_is_not_finite(value):
    text = whole(_html.curve("loss", {"loss": [1.0, value, 0.5]}, (200, 100)))
    assert text.count("<circle") == 2
