"""``fastconv train``: train an example CNN on real images."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastconv.cli.output import INSTALL_EXAMPLES, CommandError, command_line, one_line
from fastconv.cli.parser import Parser, pathname, positive_int, rate, seed
from fastconv.cli.training.setup import DEFAULT_OUT, Files, Setup, make_folder, prepare, shown
from fastconv.examples import RECIPES
from fastconv.nn.files import may_write
from fastconv.nn.progress import Progress


def add(parser: Parser) -> None:
    """Add the command's options."""
    chosen = {
        name: "/".join(f"{getattr(recipe, name):g}" for recipe in RECIPES.values())
        for name in ("epochs", "batch_size", "lr", "decay")
    }
    parser.description = (
        "Train an example CNN, by default digits_cnn on the 1797 real 8x8 digits that "
        "scikit-learn ships, and print its accuracy on images it has not seen. A tenth of the "
        "training images is set aside for validation. Ctrl-C leaves a checkpoint to resume from."
    )
    parser.epilog = f"Defaults in the order {', '.join(RECIPES)} where there are several."
    parser.add_argument(
        "--model", choices=list(RECIPES), default="digits_cnn", help="default digits_cnn"
    )
    parser.add_argument(
        "--epochs", type=positive_int, metavar="N", help=f"passes (default {chosen['epochs']})"
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help=f"images (default {chosen['batch_size']})",
    )
    parser.add_argument(
        "--lr",
        type=rate,
        metavar="RATE",
        help=f"learning rate of Adam's first epoch (default {chosen['lr']}); each further epoch "
        f"has {chosen['decay']} of the rate before",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of weights and order (default 0)"
    )
    parser.add_argument(
        "--data",
        type=pathname,
        metavar="PATH",
        help="your images: an .npz with x (m,H,W[,C]) and y (m), or x_train and y_train, or "
        "train_images and train_labels; or a folder: of IDX files (MNIST, EMNIST, QMNIST), of "
        "CIFAR's .bin files, or of a folder of PNG or JPEG files for each class",
    )
    parser.add_argument(
        "--image-size",
        type=image_size,
        metavar="HxW",
        help="resize the PNG and JPEG files of --data, such as 32x32 (default: as they are)",
    )
    parser.add_argument(
        "--labels",
        type=pathname,
        metavar="FILE",
        help="text file with the names of the classes, one a line, for the report",
    )
    parser.add_argument(
        "--out",
        type=pathname,
        default=DEFAULT_OUT,
        metavar="PATH",
        help="folder for checkpoint.npz and model.npz, or the model's file NAME.npz (the "
        f"checkpoint is NAME.checkpoint.npz beside it); default {DEFAULT_OUT}",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint, with the same settings; --epochs may be larger",
    )
    again.add_argument(
        "--overwrite",
        action="store_true",
        help="start over and replace the run in --out, which is refused otherwise",
    )
    parser.add_argument(
        "--report",
        type=pathname,
        metavar="DIR",
        help="write report.html, with learning curve, filters, confusion matrix, mistakes and "
        "where the network looked",
    )
    parser.add_argument(
        "--show-augmentation",
        type=pathname,
        metavar="FILE.png",
        help="draw what the model's recipe makes of training images, and train nothing",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="share every batch between the processes of mpiexec -n N; needs mpi4py",
    )


def image_size(text: str) -> tuple[int, int]:
    """Argument type: height and width.

    >>> image_size("32x48")
    (32, 48)
    """
    words = text.split("x")
    if len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 32x32")
    return int(words[0]), int(words[1])


def run(args: argparse.Namespace) -> int:
    """Train, and return the exit status."""
    if args.show_augmentation:
        return _show_augmentation(args, args.lr or RECIPES[args.model].lr)
    if args.distributed:
        from fastconv.cli.training.distributed import on_ranks

        return on_ranks(lambda comm, ranks: _train(args, comm, ranks))
    return _train(args)


def _train(args: argparse.Namespace, comm: Any = None, ranks: Any = None) -> int:
    """Train, on one of several ranks if there are any."""
    recipe = RECIPES[args.model]
    epochs = args.epochs or recipe.epochs
    batch_size = args.batch_size or recipe.batch_size
    lr = args.lr or recipe.lr
    first = ranks is None or ranks.first
    options = {"batch_size": batch_size, "lr": lr, "seed": args.seed}

    def prepared() -> tuple[Files, bool, Setup]:
        if args.report:
            _require_for_report("--report")
        files = Files.under(args.out)
        _check_out(files, args, first)
        resume = first and _resume_from(files, args.resume, args.overwrite)
        setup = _prepare(args, lr)
        if resume:
            _check_same_run(files, args.model, options)
        if first:
            files.make_folder()
        if first and args.report:
            make_folder("--report", args.report)
        return files, resume, setup

    if ranks is None:
        files, resume, setup = prepared()
    else:  # all go on, or none
        (files, _, setup), told = ranks.together(prepared, lambda found: [found[1]])
        resume = bool(told[0, 0])
    settings = {"epochs": epochs, "batch size": batch_size, "learning rate": lr, "seed": args.seed}
    for note in setup.notes():
        print(f"note: {note}", file=sys.stderr)
    print(setup.summary())
    print(", ".join(f"{name} {shown(value)}" for name, value in settings.items()), flush=True)
    history = _fit(args, setup, files, epochs, batch_size, lr, resume, comm)
    if not first:
        return 0
    _save(setup, files)
    labels, probabilities = _test(setup)
    right = int((probabilities.argmax(axis=1) == labels).sum())
    if args.report:
        _report(args, setup, settings, history, probabilities)
    print(f"test accuracy {right / len(labels):.4f} ({right} of {len(labels)} images)")
    return 0


def _prepare(args: argparse.Namespace, lr: float) -> Setup:
    return prepare(args.model, args.data, lr, args.seed, labels=args.labels, size=args.image_size)


def _show_augmentation(args: argparse.Namespace, lr: float) -> int:
    """Draw training images and what the recipe makes of them; returns the exit status."""
    _require_for_report("--show-augmentation")
    from fastconv.cli.training.showing import show_augmentation

    path = args.show_augmentation
    if path.suffix.lower() != ".png":
        raise CommandError(f"--show-augmentation: {path} must be a file name that ends in .png")
    if RECIPES[args.model].augment() is None:
        raise CommandError(f"--show-augmentation: the recipe of {args.model} has none")
    setup = _prepare(args, lr)
    make_folder("--show-augmentation", path.parent)
    try:
        print(show_augmentation(path, setup, args.seed))
    except (OSError, ValueError) as error:
        raise CommandError(f"--show-augmentation: {one_line(error)}") from error
    return 0


def _check_out(files: Files, args: argparse.Namespace, first: bool) -> None:
    """Raise if the run's files would replace its images, or cannot be files."""
    for file in (files.model, files.checkpoint):
        if file.is_dir():
            raise CommandError(f"--out: {file} is a folder; a file name is needed")
        if first and file.exists() and not may_write(file):
            raise CommandError(f"--out: {file}: Permission denied")
        if args.data is not None and file.exists() and file.resolve() == args.data.resolve():
            raise CommandError(f"--out: {file} holds the images of --data; give another")


def _resume_from(files: Files, resume: bool, overwrite: bool) -> bool:
    """Whether to resume; an error if there is nothing to resume, or a run that may be meant."""
    from fastconv.nn import previous_path

    kept = [p for p in (files.checkpoint, previous_path(files.checkpoint)) if p.exists()]
    if resume and kept:
        return True
    there = [*kept, *([files.model] if files.model.exists() else [])]
    if overwrite or not there:
        if resume and not files.folder.is_dir():
            raise CommandError(f"--resume: there is no checkpoint {files.checkpoint}")
        if resume:  # a run that was killed before its first checkpoint: its resumption is a start
            print(f"no checkpoint in {files.folder} yet: starting", file=sys.stderr)
        return False
    if resume:
        raise CommandError(
            f"--resume: there is {files.model}, but no checkpoint {files.checkpoint}"
        )
    raise CommandError(
        f"--out: there is a run already, {there[0]}: --resume goes on with it, --overwrite "
        "replaces it, another --out keeps it"
    )


def _check_same_run(files: Files, model: str, options: dict[str, Any]) -> None:
    """Say which option differs from the checkpoint's run; `fit` compares the rest."""
    from fastconv.nn import load_checkpoint

    try:
        found = load_checkpoint(files.checkpoint).settings
    except (OSError, ValueError) as error:
        raise CommandError(f"--resume: {one_line(error)}") from error
    before = {"lr": found["optimizer"]["lr"], **found}
    wrong = [
        f"--{name.replace('_', '-')} {shown(before[name])}, not {shown(value)}"
        for name, value in options.items()
        if before[name] != value
    ]
    trained = found["model"]  # a description, or, of an old checkpoint, the model's repr
    if not (
        trained["name"] == model if isinstance(trained, dict) else f"name={model!r}" in trained
    ):
        wrong.insert(0, f"another --model than {model}")
    if wrong:
        raise CommandError(f"--resume: {files.checkpoint} was made with {', '.join(wrong)}")


def _fit(
    args: argparse.Namespace,
    setup: Setup,
    files: Files,
    epochs: int,
    batch_size: int,
    lr: float,
    resume: bool,
    comm: Any,
) -> Any:
    from fastconv import nn

    progress = Progress()
    try:
        return nn.fit(
            setup.model,
            setup.loss,
            setup.optimizer,
            setup.x,
            setup.y,
            epochs=epochs,
            batch_size=batch_size,
            validation=setup.validation,
            seed=args.seed,
            augment=setup.recipe.augment(),
            callbacks=[progress, *setup.recipe.callbacks(lr)],
            checkpoint=files.checkpoint,
            resume=resume,
            comm=comm,
            sync_batch_norm=comm is not None,
        )
    except KeyboardInterrupt:
        progress.close()
        again = ("--resume", "--overwrite")
        words = [word for word in args.argv if word not in again] + ["--resume"]
        print(
            f"\ninterrupted after {progress.finished_epochs} of {epochs} epochs; "
            f"{files.checkpoint} holds the run up to there. Continue with\n"
            f"    {command_line(words)}",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    except FloatingPointError as error:
        raise CommandError(one_line(error), status=1) from error
    except (OSError, ValueError) as error:  # disk full; a checkpoint of other settings or damaged
        raise CommandError(one_line(error)) from error
    finally:
        progress.close()


def _save(setup: Setup, files: Files) -> None:
    from fastconv.nn.storage import save_model

    try:
        save_model(setup.model, files.model, setup.about())
    except (OSError, ValueError) as error:
        raise CommandError(f"--out: {one_line(error)}") from error
    print(f"model: {files.model}   checkpoint: {files.checkpoint}")


def _test(setup: Setup) -> tuple[Any, Any]:
    """Labels (m,) and probabilities (m, classes) of the test images."""
    import numpy as np

    probabilities = setup.loss.predict(setup.model.predict(setup.x_test))
    if setup.name == "binary_cnn":  # its one output is the probability of label 1
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    return setup.y_test, probabilities


def _require_for_report(option: str) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"{option} draws with matplotlib, which is missing; run: {INSTALL_EXAMPLES}", status=1
        ) from error


def _report(
    args: argparse.Namespace,
    setup: Setup,
    settings: dict[str, Any],
    history: Any,
    probabilities: Any,
) -> None:
    from fastconv.cli.training.report import write_report

    words = [word for word in args.argv if word != "--resume"]
    try:
        page = write_report(
            args.report, setup, settings, history, probabilities, command_line(words)
        )
    except (OSError, ValueError) as error:
        raise CommandError(f"--report: {one_line(error)}") from error
    print(f"report: {page}")
