"""``perfkit train``: weights of the cost model from a data set."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from perfkit import config
from perfkit.cost.device import Device
from perfkit.cost.model import SHIPPED
from perfkit.errors import SettingError
from perfkit.learn import dataset
from perfkit.learn.example_store import ExampleStore, groups
from perfkit.runtime.machine import Machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit train``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="of perfkit dataset build")
    parser.add_argument(
        "-o", dest="out", type=Path, default=SHIPPED, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=3, help="transformers in the ensemble")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--threads", type=int, default=2, help="that the data were measured with")


def run(args: argparse.Namespace) -> int:
    """Train, or go on where an interrupted run of the same command stopped."""
    try:
        train = import_module("perfkit.learn.train")
        recipes = import_module("perfkit.learn.train_tree")
    except ImportError as error:
        raise SettingError(
            f"perfkit train needs torch and scikit-learn ({error}): pip install torch scikit-learn"
        ) from error
    entries = dataset.load(args.folder)
    device = Device.of(Machine.detect(), args.threads)
    store = ExampleStore(config.current().cache_dir / "examples")
    found = groups(entries, device, os.cpu_count() or 1, store, _progress)
    recipe = recipes.Recipe(epochs=args.epochs)
    train.fit(
        found, dataset.fingerprint(entries), args.out, _tell, seed=args.seed,
        members=args.members, recipe=recipe,
    )  # fmt: skip
    print(args.out)
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def _progress(done: int, total: int) -> None:
    if done % 100 == 0 or done == total:
        _tell(f"features of {done} of {total} programs")
