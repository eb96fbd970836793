"""The command line: ``fastconv COMMAND ...`` or ``python -m fastconv COMMAND ...``.

Every command but ``train`` on the digits works with the core dependencies alone. `commands` has one
module for each: ``add(parser)`` adds its options, and ``run(args)`` returns the exit status.

Exit status: 0 done, 1 a check failed or an extra is missing, 2 wrong usage, 130 interrupted. A
reader of the output that goes away (head) changes neither the work nor the status.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from fastconv.cli.output import CommandError, one_line, program, standard_streams
from fastconv.cli.parser import Parser, new_parser, parse

__all__ = ["main"]

# Whose values can make every computation impossible.
VARIABLES = ("NUMBA_DISABLE_JIT", "FASTCONV_NUM_THREADS")
COMMANDS = {
    "train": "train an example CNN on real images",
    "check": "compare every function with the naive loops",
    "explain": "follow images forward and backward through a small CNN",
    "predict": "print classes and probabilities of images by a trained network",
    "export": "write a trained network as an ONNX file",
    "bench": "time a convolution problem or a table of them",
    "info": "show versions, CPU, threads and cache",
    "warmup": "compile the kernels ahead of time",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line program.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default those of the process.

    Returns
    -------
    int
        The exit status.

    Examples
    --------
    >>> main(["explain", "--digit", "7"])
    2
    """
    with standard_streams() as (out, _):
        status = _main(list(sys.argv[1:] if argv is None else argv))
        out.flush()
        if out.fault is not None and status == 0:
            print(f"{program()}: error: standard output: {out.fault.strerror}", file=sys.stderr)
            return 1
    return status


def _main(words: list[str]) -> int:
    parser, commands = build_parser()
    name = program()
    try:
        args = parse(parser, commands, words)
        if args.command is None:
            parser.print_help()
            return 0
        name = commands[args.command].prog
        args.argv = words
        status: int = import_module(f"fastconv.cli.commands.{args.command}").run(args)
        return status
    except SystemExit as exit_:  # argparse: after --help, --version or its one-line error
        return exit_.code if isinstance(exit_.code, int) else 0
    except CommandError as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return error.status
    except (RuntimeError, ValueError) as error:
        if not any(variable in str(error) for variable in VARIABLES):
            raise
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"{name}: error: not enough memory: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The program's parser and the parsers of its commands."""
    from fastconv import __version__

    parser = new_parser("Fast convolution for NumPy arrays: training, checks, timings.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", prog=program(), parser_class=Parser
    )
    commands = {}
    for name, summary in COMMANDS.items():
        commands[name] = subparsers.add_parser(name, help=summary)
        import_module(f"fastconv.cli.commands.{name}").add(commands[name])
    return parser, commands
