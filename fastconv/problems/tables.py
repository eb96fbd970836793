"""Tables of problems: text files with one descriptor a line. Some come with the package."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from fastconv.problems.grammar import EXAMPLE
from fastconv.problems.problem import Problem, parse_problem

__all__ = ["find_table", "parse_problems", "read_problems", "table_names"]

# The tables lie in the package when it is installed, in an archive too, and in benchmarks/ in a
# checkout.
_TABLES: tuple[Traversable, ...] = (
    resources.files("fastconv") / "tables",
    Path(__file__).parents[2] / "benchmarks" / "problems",
)


def parse_problems(lines: Iterable[str], *, source: str = "table") -> tuple[Problem, ...]:
    """Read a table of problems: one descriptor a line, ``#`` starts a comment.

    Parameters
    ----------
    lines : iterable of str
        The lines of the table.
    source : str
        Where the lines come from: error messages begin with it and the line number.

    Returns
    -------
    tuple of Problem
        In the order of the table.

    Raises
    ------
    ValueError
        If a line cannot be read, a name occurs twice or the table holds no problem.

    Examples
    --------
    >>> table = ["# two layers", "a: m2 w9c1 f1 k3", "b: m2 h8w8c1 f2 k3x3  # 2-D"]
    >>> [p.name for p in parse_problems(table)]
    ['a', 'b']
    """
    problems: list[Problem] = []
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            problem = parse_problem(text)
        except ValueError as fault:
            raise ValueError(f"{source}, line {number}: {fault}") from fault
        if problem.name in names:
            first = names[problem.name]
            raise ValueError(
                f"{source}, line {number}: the name '{problem.name}' is taken by line {first}"
            )
        if problem.name:
            names[problem.name] = number
        problems.append(problem)
    if not problems:
        raise ValueError(f"{source} holds no problem; expected lines such as '{EXAMPLE}'")
    return tuple(problems)


def read_problems(path: str | Path | Traversable) -> tuple[Problem, ...]:
    """Read a table file, see `parse_problems`.

    Parameters
    ----------
    path : str or Path, or what `find_table` gives
        A text file in UTF-8.

    Returns
    -------
    tuple of Problem

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not text or a line cannot be read.
    """
    try:
        file = Path(path) if isinstance(path, str) else path
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as fault:
        raise ValueError(
            f"{path} is not a text file; expected one problem a line, such as '{EXAMPLE}'"
        ) from fault
    return parse_problems(lines, source=str(path))


def table_names() -> tuple[str, ...]:
    """Names of the tables that come with the package.

    Examples
    --------
    >>> "tails" in table_names()
    True
    """
    files = [file.name for folder in _TABLES if folder.is_dir() for file in folder.iterdir()]
    return tuple(sorted({name.removesuffix(".txt") for name in files if name.endswith(".txt")}))


def find_table(name: str) -> Traversable:
    """Path of a table that comes with the package, for `read_problems`.

    Parameters
    ----------
    name : str
        One of `table_names`.

    Raises
    ------
    ValueError
        If there is no such table.

    Examples
    --------
    >>> len(read_problems(find_table("lenet5_mnist")))
    3
    """
    for folder in _TABLES:
        if name in table_names() and (path := folder / f"{name}.txt").is_file():
            return path
    raise ValueError(f"there is no table '{name}'; expected one of {', '.join(table_names())}")
