"""Finds the blocks and the commands of a page, and asks the programs themselves whether they would take them.

Nothing is run here but argument parsers, loaders of configurations, ``make --dry-run`` and imports; a
:class:`Mistake` says what is wrong."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from stdnet_core import checkpoints
from stdnet_core.data.sources import parse_source
from stdnet_core.errors import StdnetError
from stdnet_core.training.config import DataConfig, TrainConfig, load_config
from stdnet_ros.node.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
INPUTS = {"color/image", "color/camera_info", "depth/image", "depth/camera_info"}
NODE = {spec.name: spec for spec in PARAMETERS}
TRAINED = {field.name for field in dataclasses.fields(TrainConfig)}
SAMPLED = {field.name for field in dataclasses.fields(DataConfig)}

UNCHECKED = {
    **dict.fromkeys(("cd", "mkdir", "ln", "touch", ".", "unset", "export"), "the shell's own"),
    **dict.fromkeys(("apt", "sudo"), "the system's own"),
    **dict.fromkeys(
        ("colcon", "jupyter", "mypy", "pixi", "rosdep", "tensorboard", "trtexec", "pre-commit"), "another project's"
    ),
}
"""Programs whose arguments nobody here can judge -> whose they are."""
UNCHECKED_ROS2 = {"topic", "lifecycle", "param", "pkg"}
"""Verbs of ros2, which comes with a ROS distribution and asks a running graph."""
FOREIGN_LAUNCH = {"realsense2_camera", "azure_kinect_ros_driver", "depthai_ros_driver"}
"""Packages of camera drivers, whose launch files are not here."""
FOREIGN_MODULES = {"colcon": "another project's", "venv": "Python's own"}
FOREIGN_OPTIONS = {
    "--ipc": "docker run",
    "--clock": "ros2 bag play",
    "--show-args": "ros2 launch",
    "--help": "every program",
}
FOREIGN_SETTINGS = {
    "key.sub": "a placeholder",
    "qos": "of RTAB-Map",
    "approx_sync": "of RTAB-Map",
    "visual_odometry": "of RTAB-Map",
    "error": "what ros2 launch prints",
    "jitter_bins": "short for data.sensors.uniform, dtof.jitter_bins",
    "optional": "a field of each source in a list",
    "realsense_d435@1.5": "an entry of data.cells",
    "base": "of a file, beside which the other one lies",
}
"""Settings in a sentence that neither the node nor the training has under that name -> whose they are."""


class Mistake(AssertionError):
    """The page says what the program does not take."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its page, its first and its last line there, language (empty: none is given) and text."""

    page: str
    line: int
    last: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """The first line, by which a block is named."""
        return self.text.splitlines()[0]


def blocks(page: str, text: str) -> Iterator[Block]:
    """All fenced and all indented blocks of a page."""
    fence: list[str] | None = None
    indented: list[str] = []
    language, begin, before = "", 0, ""
    for number, line in enumerate([*text.splitlines(), "end"], 1):
        marker = re.match(r" *```(\w*)", line)
        if fence is not None:
            if marker:
                yield Block(page, begin, number, language, "\n".join(fence) + "\n")
                fence = None
            else:
                fence.append(line)
            continue
        if indented and line.strip() and not line.startswith("    "):
            yield Block(page, begin, number - 1, "", "\n".join(indented).rstrip() + "\n")
            indented = []
        if marker:
            fence, language, begin = [], marker[1], number
        elif line.startswith("    ") and (indented or (line.strip() and not before)):
            begin = begin if indented else number
            indented.append(line[4:])
        elif indented and not line.strip():
            indented.append("")
        before = line.strip()


def prose(text: str) -> list[str]:
    """Everything between single backticks outside of blocks, each on one line."""
    lines = text.splitlines()
    for block in blocks("", text):
        lines[block.line - 1 : block.last] = [""] * (block.last - block.line + 1)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", "\n".join(lines))]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block of shell as words, those in a comment after ``or:`` included."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        given = [*variants(line), *variants(line.partition("# or: ")[2])]
        parts = [part for whole in given for part in re.sub(r"\s(&&|;|\|)\s", "\n", whole).split("\n")]
        for words in dict.fromkeys(tuple(shlex.split(part, comments=True)) for part in parts):
            found = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
            if found:
                yield found


def variants(text: str) -> list[str]:
    """The text without, and with, what stands in optional brackets: ``[--option VALUE]``."""
    optional = r" \[(--[^\]]+)\]"
    return [re.sub(optional, "", text), re.sub(optional, r" \1", text)] if re.search(optional, text) else [text]


def resolve(name: str) -> object:
    """The object of a dotted name: a module or what is in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module) is None:
                continue
            found: object = importlib.import_module(module)
            for part in parts[count:]:
                if not hasattr(found, part):
                    raise Mistake(f"{module} has no {'.'.join(parts[count:])}")
                found = getattr(found, part)
            return found
    raise Mistake(f"there is no module {name}")


def program_of(module: str) -> ModuleType:
    """What ``python -m module`` runs: the module, or the one that a package has for it."""
    found = resolve(module)
    if hasattr(found, "__path__"):
        found = resolve(f"{module}.__main__")
    if not isinstance(found, ModuleType) or not callable(getattr(found, "main", None)):
        raise Mistake(f"{module} is no program")
    return found


class _Reached(BaseException):
    """The program has called its parser, which goes no further."""

    def __init__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace | None) -> None:
        super().__init__()
        self.parser, self.namespace = parser, namespace


def _reach(module: str, arguments: Sequence[str], *, parse: bool) -> tuple[argparse.ArgumentParser, object] | None:
    """Call the program's main until it asks its own parser; None: it ended without one."""
    main = program_of(module).main
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        for name in ("parse_args", "parse_intermixed_args"):
            original = getattr(argparse.ArgumentParser, name)

            def reached(self, args=None, namespace=None, original=original):
                raise _Reached(self, original(self, args, namespace) if parse else None)

            patch.setattr(argparse.ArgumentParser, name, reached)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            main()
        except _Reached as found:
            return found.parser, found.namespace
        except SystemExit as end:
            if end.code:
                raise Mistake(said.getvalue().strip().rpartition("\n")[2]) from None
        except StdnetError as error:
            raise Mistake(str(error)) from error
    return None


@functools.cache
def options_of(module: str) -> frozenset[str]:
    """All options of a program and its sub-commands."""
    reached = _reach(module, [], parse=False)
    if reached is None:
        return frozenset()
    pending, found = [reached[0]], set()
    while pending:
        for action in pending.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                pending += action.choices.values()
    return frozenset(found)


def check_module(module: str, arguments: Sequence[str], *, complete: bool = True) -> None:
    """Arguments of ``python -m module``; a sentence (``complete=False``) may leave out required ones."""
    if not arguments and not complete:
        program_of(module)
        return
    unknown = {word.partition("=")[0] for word in arguments if re.match(r"--\w", word)} - options_of(module)
    if unknown and arguments != ["--help"]:
        raise Mistake(f"{module} has no option {', '.join(sorted(unknown))}")
    try:
        reached = _reach(module, arguments, parse=True)
    except Mistake as mistake:
        if complete or "the following arguments are required" not in str(mistake):
            raise
        return
    if reached is None:
        if arguments and arguments != ["--help"]:
            raise Mistake(f"{module} takes no arguments")
        return
    _check_words(arguments)
    _check_names(reached[1])
    _check_overrides(module, reached[1])


def _check_words(arguments: Sequence[str]) -> None:
    """Kinds of sources and names of checkpoints are known."""
    for before, word in itertools.pairwise(["", *arguments]):
        if re.match(r"[a-z]\w*:[^=]", word):
            try:
                parse_source(word)
            except StdnetError as error:
                raise Mistake(str(error)) from error
        if before in ("--checkpoint", "--checkpoints", "--model"):
            for name in word.split(","):
                check_checkpoint(name.rpartition("=")[2])


def _check_names(namespace: object) -> None:
    """Methods of the node, and what a benchmark compares with: names that no parser looks at."""
    method = getattr(namespace, "method", None)
    if isinstance(method, str):
        check_parameter("method", method)
    baseline = getattr(namespace, "baseline", None)
    if baseline is not None and baseline not in (*namespace.presets, *namespace.checkpoints):
        raise Mistake(f"--baseline {baseline} is none of the models measured")


def check_checkpoint(name: str) -> None:
    """A name of the reader's own file has a suffix or is in capitals; others ship."""
    suffix = Path(name).suffix
    if suffix and suffix not in (".safetensors", ".pth", ".onnx"):
        raise Mistake(f"{name} has no suffix of a checkpoint")
    if not suffix and not name.isupper() and name not in checkpoints.available():
        raise Mistake(f"no checkpoint {name} ships; there are {', '.join(checkpoints.available())}")


def _check_overrides(module: str, namespace: object) -> None:
    overrides = getattr(namespace, "overrides", None)
    if overrides is None:
        return
    if module == "stdnet_core.ablate":
        ablate = program_of(module)
        try:
            ablate._check(ablate._config(namespace, "full"), {}, namespace)
        except StdnetError as error:
            raise Mistake(str(error)) from error
    else:
        check_configuration(namespace.config, [re.sub(r"=\.\.\.$", "=X", word) for word in overrides])


def check_configuration(name: str | None, overrides: Sequence[str]) -> None:
    """What the training would read, with its network and its losses."""
    from stdnet_core.training.module import loss_config, model_config

    try:
        config = load_config(name, list(overrides), check_root=False)
        model_config(config)
        loss_config(config)
    except StdnetError as error:
        raise Mistake(str(error)) from error
    if config.init is not None:
        check_checkpoint(str(config.init))


@functools.cache
def setup_keyword(name: str) -> ast.expr:
    """The keyword of that name of setup() in setup.py, a syntax tree."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    return next(node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == name)


def extras() -> set[str]:
    """Those that setup.py declares."""
    return {ast.literal_eval(key) for key in setup_keyword("extras_require").keys}


def executables() -> dict[str, str]:
    """Console script -> ``module:function``."""
    scripts = ast.literal_eval(setup_keyword("entry_points"))["console_scripts"]
    return dict(text.split(" = ") for text in scripts)


@functools.cache
def launch_arguments(file: str) -> frozenset[str]:
    """Arguments of a launch file and of those that it includes: by the launch system where there is one, else by the
    text."""
    path = ROOT / "launch" / file
    if not path.is_file():
        raise Mistake(f"there is no launch file {file}")
    text = path.read_text()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_ARGUMENTS":
            names |= {key.value for key in node.value.keys}
    if file != "stdnet.launch.py" and ("stdnet.launch.py" in text or "beside_the_node" in text):
        names |= launch_arguments("stdnet.launch.py")
    return frozenset(names)


def check_launch(file: str, arguments: Sequence[str]) -> None:
    """``name:=value`` of a launch file; what it hands to the node has the parameter's type and range."""
    from stdnet_ros.cameras import CAMERAS

    known = launch_arguments(file)
    for argument in arguments:
        if argument == "--show-args":
            continue
        name, separator, value = argument.partition(":=")
        if not separator or name not in known:
            raise Mistake(f"{file} has no argument {argument}")
        if name == "camera" and not value.isupper() and value not in CAMERAS:
            raise Mistake(f"there is no camera {value}; there are {', '.join(CAMERAS)}")
        if name in NODE and value and not value.isupper():
            check_parameter(name, value)


def check_parameter(name: str, value: str) -> None:
    """A parameter of the node and a value as text."""
    if name not in NODE:
        raise Mistake(f"the node has no parameter {name}")
    try:
        NODE[name].parse(value if isinstance(NODE[name].default, str) else yaml.safe_load(value))
    except StdnetError as error:
        raise Mistake(str(error)) from error
    if name == "model":
        check_checkpoint(value)


def check_node(arguments: Sequence[str]) -> None:
    """What is given to ``stdnet_node``: remappings of its inputs, parameters, and a file of them."""
    if list(arguments) in ([], ["--help"]):
        return
    if arguments[0] != "--ros-args" or len(arguments) % 2 == 0:
        raise Mistake(f"stdnet_node takes --ros-args and pairs of an option and a value; got {' '.join(arguments)}")
    for option, value in zip(arguments[1::2], arguments[2::2], strict=True):
        name, _, given = value.partition(":=")
        if option == "-p":
            check_parameter(name, given)
        elif option == "-r" and name not in INPUTS:
            raise Mistake(f"the node has no input {name}")
        elif option not in ("-r", "--params-file"):
            raise Mistake(f"ROS has no option {option}")


def check_make(arguments: Sequence[str]) -> None:
    """Targets and variables by the Makefile, and the commands that make would then run."""
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, separator, _ = word.partition("=")
        if separator and not re.search(rf"\$\({name}\)|^{name}\b", makefile, re.M):
            raise Mistake(f"the Makefile has no variable {name}")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    made = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, env=ours, capture_output=True, text=True)
    if made.returncode:
        raise Mistake(made.stderr.strip())
    for line in made.stdout.splitlines():
        if " -m stdnet_" in line or "scripts/" in line:
            for words in commands(line):
                check_command(words)


def check_command(words: Sequence[str], *, complete: bool = True) -> None:
    """A command in words is one that its program takes; one that nobody knows is a mistake, too."""
    program, arguments = re.sub(r"^(\.venv/bin|install/(\w+)/lib/\2)/", "", words[0]), list(words[1:])
    scripts = executables()
    if program in ("python", "python3"):
        _check_python(arguments, complete)
    elif program == "stdnet_node":
        check_node(arguments)
    elif program in scripts:
        check_module(scripts[program].partition(":")[0], arguments, complete=complete)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                given = get_args_parser().parse_args(arguments)
            except SystemExit:
                raise Mistake(said.getvalue().strip().rpartition("\n")[2]) from None
        check_module(given.training_script, given.training_script_args, complete=complete)
    elif program == "bash":
        if not (ROOT / arguments[0]).is_file():
            raise Mistake(f"there is no script {arguments[0]}")
        if arguments[0] == "scripts/gpu_session.sh":
            check_module("stdnet_core.gpu_session", arguments[1:], complete=complete)
    elif program == "ros2":
        _check_ros2(arguments, complete)
    elif program == "make":
        check_make(arguments)
    elif program == "pip":
        wanted = {name for word in arguments for found in re.findall(r"\[(.*)\]", word) for name in found.split(",")}
        if wanted - extras():
            raise Mistake(f"setup.py has no extra {', '.join(sorted(wanted - extras()))}")
        if any("stdnet" in word for word in arguments):
            raise Mistake("the package is on no index")
    elif program not in UNCHECKED:
        raise Mistake(f"nobody checks the program {program}")
    for name in re.findall(r"share/stdnet_ros/(\S+)", " ".join(arguments)):
        if not (ROOT / name).exists():
            raise Mistake(f"the package does not install {name}")


def _check_python(arguments: list[str], complete: bool) -> None:
    if arguments[0] != "-m":
        if not (ROOT / arguments[0]).is_file():
            raise Mistake(f"there is no file {arguments[0]}")
    elif arguments[1] == "pytest":
        for word in arguments[2:]:
            if "/" in word and not (ROOT / word.partition("::")[0]).exists():
                raise Mistake(f"there is no file {word}")
    elif arguments[1] not in FOREIGN_MODULES and not re.search(r"\.[A-Z]+$", arguments[1]):
        check_module(arguments[1], arguments[2:], complete=complete)


def _check_ros2(arguments: list[str], complete: bool) -> None:
    verb, *rest = arguments
    if not rest and not complete:
        return
    if verb == "launch" and rest[0] == "stdnet_ros":
        check_launch(rest[1], rest[2:])
    elif verb == "run" and rest[0] == "stdnet_ros":
        if rest[1] not in executables():
            raise Mistake(f"there is no executable {rest[1]}")
        check_command(rest[1:], complete=complete)
    elif verb not in UNCHECKED_ROS2 and not (verb == "launch" and rest[0] in FOREIGN_LAUNCH):
        raise Mistake(f"nobody checks ros2 {' '.join(arguments)}")


_PROGRAM = r"(\.venv/bin/)?(python3?|stdnet_node|evaluate_bag|stdnet_demo|torchrun|ros2|make|pip) |bash [\w.]+/\w"
_SETTING = r"[a-z]\w*(?:\.\w+)*="


def check_prose(text: str, modules: Sequence[str]) -> str | None:
    """What stands between backticks in a sentence; returns which kind of thing was checked, None: nothing.

    Args:
        text: on one line.
        modules: programs that options in a sentence may belong to.
    """
    if "..." in text.replace("=...", ""):
        return None  # what a program prints, shortened
    for kind, pattern, check in (
        ("command", _PROGRAM, lambda given: check_command(shlex.split(given), complete=False)),
        ("command", r"[a-z_]+ --\w", lambda given: _check_short(given, modules)),
        ("option", r"--\w", lambda given: _check_options(given, modules)),
        ("launch argument", r"[\w.]+:=\S*$", _check_argument),
        ("remapping", r"-r \S+:=\S+$", lambda given: check_node(["--ros-args", *given.split()])),
        ("setting", _SETTING + r"\S", _check_settings),
        ("parameter", r"[\w.@]+: \S", _check_value),
        ("name", r"stdnet_(core|ros)\.[\w.]+", lambda given: resolve(re.match(r"[\w.]+", given)[0])),
        ("file", r"(stdnet_core|stdnet_ros|config|docs|scripts|launch|docker|test|\.ci)/[\w/.]+$", _check_file),
    ):
        if re.match(pattern, text):
            for given in variants(text):
                check(given)
            return kind
    return None


def _check_short(text: str, modules: Sequence[str]) -> None:
    """``evaluate --option`` for the whole command."""
    name, *arguments = shlex.split(text)
    full = {module.rpartition(".")[2]: module for module in modules}
    if name in full:
        check_module(full[name], arguments, complete=False)
    else:
        check_command([name, *arguments], complete=False)


def _check_options(text: str, modules: Sequence[str]) -> None:
    known = frozenset(FOREIGN_OPTIONS).union(*(options_of(module) for module in modules))
    for option in re.findall(r"--[\w-]+", text):
        if option not in known:
            raise Mistake(f"no program has the option {option}")


def _check_argument(text: str) -> None:
    name = text.partition(":=")[0]
    known = frozenset(FOREIGN_SETTINGS).union(*(launch_arguments(p.name) for p in (ROOT / "launch").glob("*.py")))
    if name not in known and name not in NODE and "." not in name:
        raise Mistake(f"no launch file has the argument {name}")


def _check_settings(text: str) -> None:
    """``a.b=c d.e=f``; alternatives as ``a.b=1|2``."""
    settings = re.split(rf"\s+(?={_SETTING})", text)
    first = re.split(r"[.=]", settings[0])[0]
    if settings[0].partition("=")[0] in FOREIGN_SETTINGS or (first not in TRAINED and "." not in settings[0]):
        return
    for values in itertools.product(*(setting.partition("=")[2].split("|") for setting in settings)):
        names = [setting.partition("=")[0] for setting in settings]
        check_settings([f"{name}={value}" for name, value in zip(names, values, strict=True)])


def check_settings(settings: Sequence[str]) -> None:
    """Overrides of a configuration that a sentence does not name."""
    check_configuration("live" if "model.preset=live" in settings else None, settings)


def _check_value(text: str) -> None:
    """``name: value`` of the node, or of a training's configuration, where ``data.`` may be left out."""
    name, _, value = text.partition(": ")
    if name in FOREIGN_SETTINGS:
        return
    first = name.partition(".")[0]
    if name in NODE and not value.startswith("{"):  # both have a model
        check_parameter(name, value)
    elif first in TRAINED:
        check_settings([f"{name}={value}"])
    elif first in SAMPLED:
        check_settings([f"data.{name}={value}"])
    else:
        raise Mistake(f"neither the node nor the training has {name}")


def _check_file(text: str) -> None:
    if not re.search(r"\b[A-Z]+\b", text) and not (ROOT / text).exists():
        raise Mistake(f"there is no file {text}")
