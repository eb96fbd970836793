"""``fastconv train --report``: figures as PNG files and one self-contained page, report.html."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.cli.training import figures
from fastconv.cli.training.setup import Setup, shown
from fastconv.nn.files import replacing

__all__ = ["write_report"]

WORST = 18  # misclassified images shown
LOOKED_AT = 6  # and those of them whose maps are
DPI = 130

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .4rem 0; } .note { color: #666; font-size: .92rem; }
.figure { display: block; max-width: 100%; height: auto; }
.result { font-size: 2.4rem; font-weight: 600; margin: 1.2rem 0 0; line-height: 1.2; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3.5rem; align-items: flex-start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .22rem 1.4rem .22rem 0; border-bottom: 1px solid #e4e4e4;
         font-weight: normal; }
th { color: #666; } td.number, th.number { text-align: right; padding: .22rem .3rem .22rem 1.3rem; }
code { background: #f3f3f3; padding: .15rem .4rem; border-radius: 3px; font-size: .9em; }
.made { margin-top: 1rem; }
"""


def write_report(
    folder: Path,
    setup: Setup,
    settings: dict[str, Any],
    history: Any,
    probabilities: np.ndarray,
    command: str,
) -> Path:
    """Write the figures and the page.

    Parameters
    ----------
    folder : Path
        Created if it does not exist; files of the same names are replaced.
    setup : Setup
        Model and data.
    settings : dict
        What the run was started with.
    history : fastconv.nn.History
        Its epochs.
    probabilities : ndarray (m, classes)
        Of the test images.
    command : str
        The command line that made the run.

    Returns
    -------
    Path
        The page, ``report.html``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = probabilities.argmax(axis=1)
    drawn = {}
    if len(history):
        drawn["learning_curve"] = figures.learning_curve(history)
    drawn["filters"] = figures.filters(setup.model.layers[0].w.value)
    drawn["confusion_matrix"] = figures.confusion_matrix(
        setup.y_test, found, [_short(setup.class_name(n), 24) for n in range(setup.classes)]
    )
    wrong = worst_mistakes(setup.y_test, probabilities)
    if len(wrong):
        images, titles = _captions(setup, probabilities, wrong[:WORST])
        drawn["mistakes"] = figures.mistakes(images, titles)
        drawn["attention"] = _attention(setup, images, found, wrong[:LOOKED_AT])
    tags = {name: _write_figure(folder / f"{name}.png", fig) for name, fig in drawn.items()}
    page = folder / "report.html"
    text = _page(setup, settings, history, found, tags, len(wrong), command)
    with replacing(page) as file:
        file.write(text.encode())
    return page


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of the misclassified images, the one with the least probable truth first.

    Parameters
    ----------
    labels : ndarray (m,)
    probabilities : ndarray (m, classes)

    Examples
    --------
    >>> worst_mistakes(np.array([0, 1, 1]), np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]])).tolist()
    [1, 0]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order: np.ndarray = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    return order


def _captions(
    setup: Setup, probabilities: np.ndarray, chosen: np.ndarray
) -> tuple[list[np.ndarray], list[str]]:
    images, titles = [], []
    for i in chosen:
        label, found = int(setup.y_test[i]), int(probabilities[i].argmax())
        images.append(setup.x_test[i])
        chances = f"{probabilities[i, label]:.1%}", f"{probabilities[i, found]:.1%}"
        if setup.class_names is None:
            title = f"{label}, taken for {found}\nP({label}) {chances[0]}, P({found}) {chances[1]}"
        else:
            true, taken = (_short(setup.class_name(n), 11) for n in (label, found))
            title = f"is {true}: {chances[0]}\nfound {taken}: {chances[1]}"
        titles.append(title)
    return images, titles


def _attention(
    setup: Setup, images: list[np.ndarray], found: np.ndarray, chosen: np.ndarray
) -> Any:
    """Saliency and class activation maps of the worst mistakes."""
    from fastconv import nn

    x, y, taken = np.stack(images[: len(chosen)]), setup.y_test[chosen], found[chosen]
    maps = [nn.saliency(setup.model, x, taken)]
    heads = ["image", "pixels that move\nwhat was found"]
    if any(len(layer.output_shape or ()) == 3 for layer in setup.model.layers):
        maps += [nn.class_activation_map(setup.model, x, classes) for classes in (taken, y)]
        heads += ["speaks for\nwhat was found", "speaks for\nthe truth"]
    names = [
        [_short(setup.class_name(int(n)), 14) for n in pair] for pair in zip(y, taken, strict=True)
    ]
    titles = [f"is {true}\nfound {false}" for true, false in names]
    return figures.attention(list(x), list(zip(*maps, strict=True)), titles, heads)


def _short(name: str, most: int) -> str:
    """A class's name in at most so many characters."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _write_figure(path: Path, figure: Any) -> str:
    """Save a figure as PNG; return it as an HTML image that needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    data = buffer.getvalue()
    with replacing(path) as file:
        file.write(data)
    width = int.from_bytes(data[16:20], "big")  # of the PNG's header
    encoded = base64.b64encode(data).decode("ascii")
    alt = path.stem.replace("_", " ")
    shown = round(width / DPI * 96)
    return f'<img class="figure" width="{shown}" alt="{alt}" src="data:image/png;base64,{encoded}">'


def _page(
    setup: Setup,
    settings: dict[str, Any],
    history: Any,
    found: np.ndarray,
    tags: dict[str, str],
    wrong: int,
    command: str,
) -> str:
    total = len(setup.y_test)
    title = f"{setup.name} on {Path(setup.source).name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="note">{html.escape(setup.summary())}</p>',
        f'<p class="result">{(total - wrong) / total:.2%}</p>',
        f"<p>test accuracy: {total - wrong} of {total} images that took no part in the "
        "training</p>",
        '<div class="tables">',
        f"<section><h2>Settings</h2>{_settings(setup, settings, history)}</section>",
        f"<section><h2>Result per class</h2>{_per_class(setup, found)}</section></div>",
        f'<p class="note made">Made by <code>{html.escape(command)}</code></p>',
    ]
    if "learning_curve" in tags:
        parts += ["<h2>Learning curve</h2>", tags["learning_curve"]]
        parts.append(
            '<p class="note">The training figures are means over the epoch, each batch before its '
            "own step; the validation figures are taken after the epoch.</p>"
        )
    parts += ["<h2>Filters of the first layer</h2>", tags["filters"]]
    colours = setup.model.layers[0].w.shape[2] == 3
    parts.append(
        '<p class="note">Each as the colours that it adds to a middle grey, which is 0.</p>'
        if colours
        else '<p class="note">Red weights are positive, blue ones negative.</p>'
    )
    parts += ["<h2>Confusion matrix</h2>", tags["confusion_matrix"]]
    parts.append(
        '<p class="note">Rows are the true classes; what is off the diagonal is a mistake.</p>'
    )
    parts.append("<h2>Worst mistakes</h2>")
    if wrong:
        shown = f"The worst {WORST} of {wrong}" if wrong > WORST else f"All {wrong}"
        order = f"{shown}, the least probable truth first." if wrong > 1 else "The only one."
        parts.append(f"<p>{order}</p>{tags['mistakes']}")
        parts += ["<h2>Where the network looked</h2>", tags["attention"]]
        parts.append(
            '<p class="note">Bright pixels move the output of the class that was found the most '
            "(its gradient); the class activation maps show where the last feature map speaks for "
            "that class, and for the true one.</p>"
        )
    else:
        parts.append(f"<p>None: all {total} test images were recognised.</p>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _settings(setup: Setup, settings: dict[str, Any], history: Any) -> str:
    rows = {"model": setup.name, "data": setup.source}
    rows |= {name: shown(value) for name, value in settings.items()}
    if len(history):
        last = history.epochs[-1]
        rows["training time"] = f"{sum(history['seconds']):.1f} s"
        rows["speed, last epoch"] = f"{last['images_per_second']:,.0f} images/s"
        rows["training loss"] = f"{last['loss']:.4f}"
        if last["val_accuracy"] is not None:
            rows["validation accuracy"] = f"{last['val_accuracy']:.2%}"
    cells = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    ]
    return "<table>" + "".join(cells) + "</table>"


def _per_class(setup: Setup, found: np.ndarray) -> str:
    """Table of images, recall, precision and F1 per class, as scikit-learn has them."""
    from sklearn import metrics

    labels = range(setup.classes)
    precision, recall, score, counts = metrics.precision_recall_fscore_support(
        setup.y_test, found, labels=labels, zero_division=np.nan
    )
    rows = []
    for label in labels:
        cells = [
            html.escape(setup.class_name(label)),
            str(int(counts[label])),
            *(
                f"{share:.1%}" if np.isfinite(share) else "-"
                for share in (recall[label], precision[label], score[label])
            ),
        ]
        rows.append("".join(f'<td class="number">{cell}</td>' for cell in cells))
    heads = ("class", "images", "recall", "precision", "F1")
    head = "".join(f'<th class="number">{name}</th>' for name in heads)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
