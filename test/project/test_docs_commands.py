"""The pages cannot rot: Python in them runs, their commands are taken by the programs that they name, their YAML loads.

What cannot be judged here stands in the tables below with its reason; all else that fails is a mistake of the page."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import doc_checks
import numpy as np
import pytest
import torch
import yaml
from doc_checks import ROOT, Block, Mistake
from ros_fixtures import free_domains, rclpy, wait_for
from test_bag_evaluation import write_bag
from test_data_layouts import write_tartanair
from train_fixtures import write_clip

from stdnet_core import ModelConfig, STDNet, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.sources import open_source
from stdnet_ros.node import parameters
from stdnet_ros.node.node import StdnetNode

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in ("docs", ".", "stdnet_core/weights", "test/golden")
    for path in sorted(ROOT.glob(f"{folder}/*.md"))
    if path.name != "CHANGELOG.md"  # which tells of what was
}
BLOCKS = [block for page, text in PAGES.items() for block in doc_checks.blocks(page, text)]
NO_CODE = {
    ("docs/accuracy.md", "live: geometric mean"): "what a command printed",
    ("docs/architecture.md", "foundations <- model"): "a drawing",
    ("docs/evaluation.md", "/results/dvsr_x8/"): "names of files",
    ("docs/evaluation.md", "DyDToF_LR/X8/"): "names of files",
}
"""Blocks that are neither code nor commands: page and how the block begins -> what it is."""
ELSEWHERE = {("README.md", "from stdnet_core import DepthUpsampler"): "run in test_readme.py"}
"""Blocks of Python that are not run in this file, but in another one."""
MODULES = sorted(
    {
        *(name for text in PAGES.values() for name in re.findall(r"python -m (stdnet_[\w.]*[a-z_])\b(?!\.)", text)),
        "stdnet_core.gpu_session",
        "stdnet_ros.demo",
    }
)
"""Programs of the pages; the last two have names of their own there, a script and a target of make."""


def kind_of(block: Block) -> str:
    """How a block is checked; one of no kind is taken for commands."""
    if block.language:
        return {"bash": "commands", "sh": "commands"}.get(block.language, block.language)
    if any(block.page == page and block.first.startswith(begin) for page, begin in NO_CODE):
        return "no code"
    first = next((line for line in block.text.splitlines() if not line.startswith("#")), "")
    return "yaml" if re.match(r"\S+:( \{|$)", first) else "xml" if first.startswith("<") else "commands"


def blocks_of(kind: str) -> list[Block]:
    return [block for block in BLOCKS if kind_of(block) == kind]


def name_of(value: object) -> str:
    return f"{value.page}:{value.line}" if isinstance(value, Block) else str(value)


COMMANDS = [(block, words) for block in blocks_of("commands") for words in doc_checks.commands(block.text)]
PROSE = [(page, text) for page, body in PAGES.items() for text in dict.fromkeys(doc_checks.prose(body))]


def run(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, in this process."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        status = doc_checks.program_of(module).main()
    except SystemExit as end:
        status = end.code
    assert not status


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory, with the names of files that the pages give to the reader's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(path: Path, **changes) -> Path:
    """A checkpoint of the paper's kind, narrow."""
    narrow = dict(channels=4, head_channels=4, trunk_blocks=0, reconstruction_blocks=0, stages=1)
    model = STDNet(ModelConfig.preset("tiny", **narrow, **changes)).eval()
    checkpoints.save(path, model, CheckpointInfo(model.config, (8,), 10.0))
    return path


@dataclass(frozen=True)
class Run:
    """A command of a page, found by how it begins, that is run with some of its words replaced by small things."""

    page: str
    begins: str
    replaced: dict[str, str] = field(default_factory=dict)
    leaves: str = ""
    """A file or folder that must be there afterwards."""

    def words(self) -> list[str]:
        given = [shlex.join(words) for block, words in COMMANDS if block.page == self.page]
        given += [text for page, text in PROSE if page == self.page]
        text = next(text for text in given if text.startswith(self.begins))
        for old, new in self.replaced.items():
            assert old in text, f"{old!r} is not in {text!r}"
            text = text.replace(old, new)
        return shlex.split(text)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        python, option, module, *arguments = self.words()
        assert (python, option) == ("python", "-m")
        run(module, arguments, monkeypatch)
        assert Path(self.leaves).exists()


# Blocks


def test_every_block_is_found_that_a_reader_sees():
    markdown = pytest.importorskip("markdown", reason="comes with the extra docs")
    for page, text in PAGES.items():
        seen = markdown.markdown(text, extensions=["fenced_code", "tables"]).count("<pre><code")
        assert len(list(doc_checks.blocks(page, text))) == seen, page


def test_every_block_has_a_kind_and_every_exception_a_block():
    assert {kind_of(block) for block in BLOCKS} == {"python", "commands", "yaml", "xml", "no code"}
    found = {(page, begin) for page, begin in NO_CODE for b in BLOCKS if b.page == page and b.first.startswith(begin)}
    assert found == set(NO_CODE)
    assert {(block.page, block.first) for block in blocks_of("python")} == {*PYTHON, *ELSEWHERE}


def stream_names(folder: Path) -> dict:
    network(folder / "model.safetensors")
    (sequence,) = open_source("synthetic:5,1,48x64,4")
    clip = sequence.clip(0, 4)
    rgb = torch.as_tensor(clip.rgb).reshape(4, 1, 3, 48, 64)
    depth = torch.as_tensor(clip.depth).reshape(4, 1, 1, 48, 64)[..., ::8, ::8] / 10.0
    return {"frames": list(zip(rgb, depth, strict=True))}


def streamed(names: dict) -> None:
    assert names["output"].frame == 1
    assert names["output"].depth.shape == (1, 1, 48, 64)
    assert len(names["rest"]) == 2


def camera_names(_: Path) -> dict:
    (sequence,) = open_source("synthetic:5,1,480x640,1")
    clip = sequence.clip(0, 1)
    return {"depth": torch.as_tensor(clip.depth), "rgb": torch.as_tensor(clip.rgb)}


def measured(names: dict) -> None:
    assert names["measured"].shape == (1, 1, 240, 320)
    true = names["depth"][..., ::2, ::2]
    seen = names["measured"] > 0
    assert seen.float().mean() > 0.5
    assert ((names["measured"] - true).abs() / true)[seen].median() < 0.05


def exported_names(folder: Path) -> dict:
    pytest.importorskip("onnxscript", reason="comes with the extra export")
    network(folder / "model.safetensors", passes=("forward",))
    write_clip(folder / "recording")
    with pytest.MonkeyPatch.context() as patch:
        Run("docs/export.md", "python -m stdnet_core.export model", {"320x240": "64x48"}, "model.onnx").run(patch)
    return {}


def upsampled(names: dict) -> None:
    frame = np.full((48, 64, 3), 128, np.uint8), np.full((6, 8), 1500, np.uint16)
    assert names["upsampler"].step(*frame).depth.shape == (48, 64)


PYTHON: dict[tuple[str, str], tuple[Callable[[Path], dict], Callable[[dict], None]]] = {
    ("docs/export.md", "from stdnet_core import DepthUpsampler"): (exported_names, upsampled),
    ("docs/sensors.md", "from stdnet_core.data.sensors import DepthCamera, sensor"): (camera_names, measured),
    ("docs/streaming.md", "from stdnet_core import StreamingSTDNet, checkpoints"): (stream_names, streamed),
}
"""Blocks of Python -> what the text takes for given, files and names; and what must have come out."""


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks_of("python"), ids=name_of)
def test_python_runs(block, here):
    if (block.page, block.first) in ELSEWHERE:
        assert "exec(block" in (ROOT / "test" / "project" / "test_readme.py").read_text()
        return
    given, then = PYTHON[block.page, block.first]
    names = given(here)
    exec(block.text, names)
    then(names)


def training_file(text: str, folder: Path) -> None:
    """Load the text as a configuration of a training."""
    (folder / "training.yaml").write_text(text)
    doc_checks.check_configuration(str(folder / "training.yaml"), [])


@pytest.mark.parametrize("block", blocks_of("yaml"), ids=name_of)
def test_settings_are_loaded_by_what_reads_them(block, here):
    if not yaml.safe_load(block.text).keys() <= {"/**", "/stdnet", "stdnet"}:  # of no node: of a training
        training_file(block.text, here)
        return
    values = yaml.safe_load(block.text)["/**"]["ros__parameters"]
    qos = values.pop("qos_overrides", {})
    assert parameters.unknown_names(list(values)) == []
    (here / "params.yaml").write_text(block.text)
    inputs = [topic for topic, given in qos.items() if "subscription" in given]
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=next(free_domains()))
    remapped = [word for topic in inputs for word in ("-r", f"color/image:={topic}")]
    arguments = ["--ros-args", "--params-file", "params.yaml", "-p", "method:=guided_temporal", *remapped]
    node = StdnetNode(context=context, cli_args=arguments)
    ends = {"subscription": node.get_subscriptions_info_by_topic, "publisher": node.get_publishers_info_by_topic}
    try:
        assert node.start(), node.failure
        for name, value in values.items():
            given = node.get_parameter(name).value
            assert (list(given) if isinstance(value, list) else given) == value
        for topic, given in qos.items():
            for side, policies in given.items():
                wait_for(lambda ask=ends[side], topic=topic: ask(topic))
                assert ends[side](topic)[0].qos_profile.reliability.name.lower() == policies["reliability"]
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("block", blocks_of("xml"), ids=name_of)
def test_xml_is_well_formed(block):
    """Cyclone DDS, which alone could judge its settings, comes with a ROS distribution."""
    assert ElementTree.fromstring(block.text).tag == "CycloneDDS"


# Commands


@pytest.mark.parametrize("block", blocks_of("commands"), ids=name_of)
def test_commands_of_a_block_are_taken_by_what_they_name(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    found = list(doc_checks.commands(block.text))
    assert found
    for words in found:
        doc_checks.check_command(words)


@pytest.mark.parametrize("page", PAGES)
def test_what_sentences_name_is_there(page):
    for text in dict.fromkeys(doc_checks.prose(PAGES[page])):
        try:
            doc_checks.check_prose(text, MODULES)
        except Mistake as mistake:
            raise Mistake(f"{page}: `{text}`: {mistake}") from mistake


def test_there_are_commands_and_names_of_every_kind():
    programs = {words[0].removeprefix(".venv/bin/") for _, words in COMMANDS}
    assert programs >= {"python", "make", "ros2", "pip", "bash", "torchrun", "stdnet_node", "evaluate_bag"}
    assert len(COMMANDS) > 80
    assert len(MODULES) > 15


def test_no_exception_is_left_that_no_page_needs():
    given = [text for block, words in COMMANDS for text in (words[0], " ".join(words))] + [text for _, text in PROSE]
    programs = [name for name, whose in doc_checks.UNCHECKED.items() if whose != "the shell's own"]
    for name in (*programs, *doc_checks.FOREIGN_MODULES, *doc_checks.FOREIGN_LAUNCH):
        assert any(re.search(rf"(^|\s){re.escape(name)}(\s|$)", text) for text in given), name
    for name in doc_checks.UNCHECKED_ROS2:
        assert any(f"ros2 {name}" in text for text in given), name
    for name in (*doc_checks.FOREIGN_OPTIONS, *doc_checks.FOREIGN_SETTINGS):
        assert any(re.search(rf"{re.escape(name)}\b", text) for text in given), name


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "launch").glob("*.py")))
def test_arguments_of_launch_files_are_those_of_the_launch_system(file, tmp_path, monkeypatch):
    pytest.importorskip("launch_ros", reason="comes with a ROS distribution")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    share = tmp_path / "share"
    for folder in (share / "ament_index" / "resource_index" / "packages", share / "stdnet_ros"):
        folder.mkdir(parents=True)
    (share / "ament_index" / "resource_index" / "packages" / "stdnet_ros").touch()
    for folder in ("config", "launch"):
        (share / "stdnet_ros" / folder).symlink_to(ROOT / folder)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    description = get_launch_description_from_python_launch_file(str(ROOT / "launch" / file))
    assert {argument.name for argument in description.get_launch_arguments()} == doc_checks.launch_arguments(file)


@pytest.mark.parametrize("module", MODULES)
def test_help(module, monkeypatch, capsys):
    if not doc_checks.options_of(module):
        return  # stdnet_core.data.sensors, which is run below
    run(module, ["--help"], monkeypatch)
    shown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z0-9]\b(?!-\n)", capsys.readouterr().out))
    assert shown
    known = [doc_checks.options_of(other) for other in MODULES]  # a help names options of other programs, too
    assert shown <= set(doc_checks.FOREIGN_OPTIONS).union(*known)


TREE = {"/data/tartanair": "tartanair", " --split test": ""}  # a split is complete with hundreds of frames
_FROM_DISK = "python -m stdnet_core.evaluate --data tartanair:/data/tartanair --split test --scale 8 --lr"
RUNS = {
    "released": [
        Run("docs/evaluation.md", "python -m stdnet_core.convert", {}, "x8.safetensors"),
        Run("docs/evaluation.md", "python -m stdnet_core.make_lr t", {**TREE, "4,8,16": "8"}, "tartanair/TartanAir_LR"),
        Run("docs/evaluation.md", _FROM_DISK, TREE),
    ],
    "recordings": [
        Run("docs/accuracy.md", "python -m stdnet_core.evaluate --self"),
    ],
    "bag": [Run("docs/index.md", "python -m stdnet_ros.evaluate_bag BAG", {}, "bag_report/report.html")],
    "shards": [Run("docs/gpu.md", "python -m stdnet_core.training.shards pack", {}, "runs/shards/clips_000.zip")],
    "state": [
        Run(
            "docs/streaming.md",
            "python -m stdnet_core.benchmark --state",
            {",tiny,small,base": "", "320x240,640x480": "64x48"},
        )
    ],
    "reference": [Run("docs/parameters.md", "python -m stdnet_ros.node.reference --write", {}, "docs/parameters.md")],
    "sensors": [Run("docs/sensors.md", "python -m stdnet_core.data.sensors")],
    "configuration": [
        Run("docs/index.md", "python -m stdnet_core.train", {"--max-minutes": "--print-config --max-minutes"}),
    ],
}
"""Commands that are over in seconds, in an order in which each finds what the one before it left."""


@pytest.mark.slow
@pytest.mark.parametrize("runs", RUNS.values(), ids=list(RUNS))
def test_commands_run(runs, here, monkeypatch, capsys):
    write_clip(here / "CLIPS" / "a")
    for name in ("recording", "RECORDINGS"):
        (here / name).symlink_to("CLIPS/a")
    (here / "docs").mkdir()
    (here / "docs" / "topics.md").write_text(re.sub(r"(?m)^\| `~.*\n", "", PAGES["docs/topics.md"]))
    if runs is RUNS["bag"]:
        write_bag(here / "BAG", frames=4)
    elif runs is RUNS["released"]:
        shutil.copy(ROOT / "test" / "golden" / "stdnet_c16.pt", "released.pth")
        write_tartanair(here / "tartanair" / "hospital" / "Hard" / "P047")
    else:
        network(here / "model.safetensors", passes=("forward",))
    for step in runs:
        step.run(monkeypatch)
    out = capsys.readouterr().out
    if runs is RUNS["reference"]:
        for page in ("docs/parameters.md", "docs/topics.md"):
            assert (here / page).read_text() == PAGES[page]
    elif runs is RUNS["sensors"]:
        assert out.strip() in PAGES["docs/sensors.md"]
    elif runs is RUNS["configuration"]:
        assert yaml.safe_load(out)["data"]["root"] == "CLIPS"


def test_the_node_tells_of_itself():
    """In a process of its own: the command takes the signals of its process."""
    command = [sys.executable, "-m", "stdnet_ros.node.command", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "stdnet_node --ros-args" in ended.stdout


# The checker itself


WRONG = {
    "python -m stdnet_core.evaluat": "stdnet_core has no evaluat",
    "python -m stdnet_core.errors": "is no program",
    "python -m stdnet_core.evaluate --sensr exact": "no option --sensr",
    "python -m stdnet_core.evaluate --scale eight": "scale",
    "python -m stdnet_core.evaluate --sensor kinect_v9": "kinect_v9",
    "python -m stdnet_core.evaluate --checkpoint tiny_causal": "no checkpoint tiny_causal ships",
    "python -m stdnet_core.evaluate --data tartanar:/data": "tartanar",
    "python -m stdnet_core.evaluate --data 'folder:/data?unit=1'": "unit",
    "python -m stdnet_core.convert released.pth --scale 8": "required",
    "python -m stdnet_core.data.sensors --all": "no option --all",
    "python -m stdnet_core.train optim.rate=1": "rate",
    "python -m stdnet_core.train optim.lr=fast": "fast",
    "python -m stdnet_core.train --config livee data.root=X": "livee",
    "python -m stdnet_core.train 'model={preset: big}'": "big",
    "python -m stdnet_core.train loss.spatial=1": "spatial",
    "python -m stdnet_core.train init=tiny_causal": "no checkpoint",
    "python -m stdnet_core.ablate --steps 5 --config paper_x8 data.root=X --scale 4": "--scale is 4",
    "python -m stdnet_core.benchmark --presets alive": "alive",
    "python -m stdnet_core.benchmark --presets live --baseline tiny": "--baseline tiny",
    "python -m stdnet_ros.benchmark --method magic": "magic",
    "python -m stdnet_core.evaluate --checkpoint x8.safetensor": "no suffix of a checkpoint",
    "torchrun --procs 2 -m stdnet_core.train": "--procs",
    "torchrun --nproc-per-node 2 -m stdnet_core.train --minutes 3": "no option --minutes",
    "torchrun -m stdnet_core.train date.root=...": "date",
    "bash scripts/gpu.sh": "no script",
    "bash scripts/gpu_session.sh --hours 3": "no option --hours",
    "make demos": "demos",
    "make demo SIZE=8": "no variable SIZE",
    "make demo DEMO_ARGS=--framez": "no option --framez",
    "pip install '.[all]'": "no extra all",
    "ros2 launch stdnet_ros stdnet_rviz2.launch.py": "no launch file",
    "ros2 launch stdnet_ros stdnet.launch.py camera:=realsens": "no camera realsens",
    "ros2 launch stdnet_ros stdnet.launch.py frame:=x": "no argument frame",
    "ros2 launch stdnet_ros stdnet_nvblox.launch.py voxel_size:=0.1 fixed_frame:=x": "no argument fixed_frame",
    "ros2 launch stdnet_ros stdnet.launch.py latency_frames:=9": "between 0 and 8",
    "ros2 launch other_robot all.launch.py": "nobody checks",
    "ros2 run stdnet_ros evaluate BAG": "no executable evaluate",
    "ros2 run stdnet_ros evaluate_bag BAG --itself": "no option --itself",
    "stdnet_node --ros-args -p modle:=live": "no parameter modle",
    "stdnet_node --ros-args -p method:=magic": "magic",
    "stdnet_node --ros-args -r color:=/x": "no input color",
    "evaluate_bag --self": "required",
    "python test/churn.py": "no file",
    ".venv/bin/python -m pytest test/test_losses.py": "no file",
    "frobnicate now": "nobody checks the program frobnicate",
    "export X=$(ros2 pkg prefix stdnet_ros)/share/stdnet_ros/config/fast.xml": "does not install",
}
"""A command with one thing wrong -> what is said of it."""


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_found(command):
    (words,) = doc_checks.commands(command)
    with pytest.raises(Mistake, match=re.escape(WRONG[command])):
        doc_checks.check_command(words)


@pytest.mark.parametrize(
    "text",
    [
        "python -m stdnet_core.evaluate --slef",
        "make tests",
        "ros2 launch stdnet_ros stdnet.launch.py cam:=NAME",
        "--sensors NAME",
        "--live [--speed 1.0]",
        "evaluate --lr-dir DIR",
        "visual:=false",
        "optim.horizons=time",
        "model.neighbors=0|1|2|many",
        "max_aeg: 0",
        "max_age: soon",
        "model: life",
        "model.preset: lively",
        "augmentation.misregistered: {",
        "stdnet_core.streaming.upsample_videos(model, frames)",
        "stdnet_core.streamin.upsample_video",
        "config/train/life.yaml",
    ],
)
def test_a_wrong_name_in_a_sentence_is_found(text):
    with pytest.raises(Mistake):
        doc_checks.check_prose(text, MODULES)


def test_a_made_up_page_is_taken_apart():
    page = textwrap.dedent("""\
        # Page

        Try `make
        demo` first:

            make test TEST_ARGS="-k x" && cd ..   # or: python -m a --one [--two 2]
            python -m b \\
                --three

            after a line

        ```python
        x = 1
        ```
        and `--four`
            this is no block.
    """)
    first, second = doc_checks.blocks("page", page)
    assert (first.line, first.last, first.language) == (6, 11, "")
    assert list(doc_checks.commands(first.text)) == [
        ["make", "test", "TEST_ARGS=-k x"],
        ["cd", ".."],
        ["python", "-m", "a", "--one"],
        ["python", "-m", "a", "--one", "--two", "2"],
        ["python", "-m", "b", "--three"],
        ["after", "a", "line"],
    ]
    assert (second.line, second.language, second.text) == (12, "python", "x = 1\n")
    assert doc_checks.prose(page) == ["make demo", "--four"]


def test_a_training_file_is_loaded(here):
    (block,) = doc_checks.blocks("page", "So:\n\n    optim:\n      lr: 1e-3\n    model: {preset: small}\n")
    assert kind_of(block) == "yaml"
    training_file(block.text, here)
    for wrong in ("optim:\n  rate: 1e-3\n", "model: {preset: large}\n", "loss: {spatial: 1}\n"):
        with pytest.raises(Mistake):
            training_file(wrong, here)


@pytest.mark.parametrize("wrong", ["StreamingNet", "loads", "flushed", "latencies"])
def test_wrong_python_is_found(wrong, here):
    right = {"StreamingNet": "StreamingSTDNet", "loads": "load", "flushed": "flush", "latencies": "latency"}[wrong]
    (block,) = [block for block in blocks_of("python") if block.page == "docs/streaming.md"]
    names = stream_names(here)
    text = re.sub(rf"\b{right}\b", wrong, block.text)
    assert text != block.text
    with pytest.raises((ImportError, AttributeError, TypeError)):
        exec(text, names)
