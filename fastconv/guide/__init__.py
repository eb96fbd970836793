"""Pages to read, beside the reference.

========================== =====================================================================
page                       what it is about
========================== =====================================================================
`fastconv.guide.learn`     two questions of learners, each answered by one command
`.how_it_works`            the path of one call, with the drawing of the engine
`.coming_from`             PyTorch, Keras, SciPy: names, axes, "same", padding, momentum
`.projects`                plans, naive twins and checks, in a project of your own
`.networks`                layers, `fit`, programs
`.backends`                fastconv behind ONNX, Keras, scikit-learn, autograd, JAX and others
`.commands`                the command line
`.speed`                   tables, and how to measure them
`.guarantees`              what is promised, and the test of each promise
`.limits`                  what there is not, and what is slow
`.versions`                what is supported, for how long, how things are deprecated
========================== =====================================================================

The pages are the files ``*.md`` beside this one. ``python -m fastconv.guide FOLDER`` builds
them and the reference of all public names as HTML (with pdoc, from the extra ``docs``).
"""

from __future__ import annotations

from importlib import resources

__all__ = ["PAGES", "page"]

PAGES = (
    "learn", "how_it_works", "coming_from", "projects", "networks", "backends", "commands",
    "speed", "guarantees", "limits", "versions",
)  # fmt: skip


def page(name: str) -> str:
    """The text of a page, as Markdown.

    Parameters
    ----------
    name : str
        One of `PAGES`.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such page.

    Examples
    --------
    >>> page("versions").splitlines()[0]
    '# Versions'
    """
    if name not in PAGES:
        raise ValueError(f"name: must be one of {', '.join(PAGES)}, got {name!r}")
    return (resources.files("fastconv.guide") / f"{name}.md").read_text(encoding="utf-8")
