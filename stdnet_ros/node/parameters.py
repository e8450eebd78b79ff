"""The node's parameters: one table from which they are declared, validated and documented (see :mod:`.reference`).

The table itself needs no ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import ConfigError
from stdnet_ros.node.watchdog import DEFAULT_SECONDS, GRACE_SECONDS, LOADING_SECONDS

ParameterValue = bool | int | float | str | tuple


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    The type is that of ``default`` (bool, int, float, str or a tuple of floats). ``runtime`` parameters may change
    while the node is configured. The others may not, because the model, a topic or a thread was created from them."""

    name: str
    default: ParameterValue
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    runtime: bool = False

    @property
    def type_name(self) -> str:
        """ROS name of the type."""
        if isinstance(self.default, tuple):
            return "double_array"
        return {bool: "bool", int: "integer", float: "double", str: "string"}[type(self.default)]

    def parse(self, value: Any) -> ParameterValue:
        """Convert ``value`` to the parameter's type; an int is accepted for a double.

        Raises:
            ConfigError: wrong type, out of range or not one of the choices.
        """
        parsed = self._typed(value)
        if self.choices and parsed not in self.choices:
            raise ConfigError(f"{self.name} must be one of {', '.join(self.choices)}; got {parsed!r}")
        if self.range is not None and not self.range[0] <= parsed <= self.range[1]:
            raise ConfigError(f"{self.name} must be between {self.range[0]:g} and {self.range[1]:g}; got {parsed:g}")
        return parsed

    def _typed(self, value: Any) -> ParameterValue:
        if isinstance(self.default, tuple):
            if isinstance(value, str | bytes) or not isinstance(value, Sequence):
                raise ConfigError(f"{self.name} must be a list of {len(self.default)} numbers; got {value!r}")
            numbers = list(value)
            if len(numbers) != len(self.default) or not all(_is_finite_number(n) for n in numbers):
                raise ConfigError(f"{self.name} must be a list of {len(self.default)} finite numbers; got {numbers!r}")
            return tuple(float(n) for n in numbers)
        if isinstance(self.default, float):
            if not _is_finite_number(value):
                raise ConfigError(f"{self.name} must be a finite number; got {value!r}")
            return float(value)
        if type(value) is not type(self.default):
            raise ConfigError(f"{self.name} must be of type {self.type_name}; got {value!r}")
        return value


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec(
        "autostart",
        True,
        "Configure and activate at start. Set to false if a lifecycle manager does this.",
    ),
    ParameterSpec(
        "method",
        "auto",
        "How depth is upsampled. auto: the network if model is set or weights ship with the package, otherwise "
        "joint_bilateral. Without a network, or with another than live, which takes only some resolutions, auto runs "
        "guided_temporal where depth is less than 4 times coarser than colour (RealSense, OAK-D, Kinect). "
        "guided_temporal denoises depth and fills its holes at the resolution of depth, without weights. stdnet is the "
        "network.",
        choices=("auto", "stdnet", "guided_temporal", "joint_bilateral", "bilinear", "bicubic", "nearest"),
    ),
    ParameterSpec(
        "model",
        "auto",
        "Checkpoint: the name of one that ships with the package, the path of a .safetensors file, or auto for the "
        "shipped checkpoint live, which accepts depth of any scale.",
    ),
    ParameterSpec(
        "device",
        "auto",
        "auto, cpu, cuda or cuda:N. If the device is missing or fails, the node warns and falls back to the CPU.",
    ),
    ParameterSpec(
        "precision",
        "auto",
        "Number format of the network's arithmetic. auto: fp32 with OpenVINO; elsewhere bf16 where the device supports "
        "it, otherwise fp16 on CUDA and fp32 on the CPU.",
        choices=("auto", "fp32", "fp16", "bf16"),
    ),
    ParameterSpec(
        "backend",
        "auto",
        "What runs the network: torch, or openvino, which is faster on a CPU and must be installed (extra openvino). "
        "openvino runs recurrent networks such as live, in fp32. Once the sizes of 60 frames were the same, it "
        "compiles the network for some seconds (for four different sizes at most); until then PyTorch computes the "
        "frames. auto: openvino if it is "
        "installed, the device is the CPU and the precision is auto or fp32.",
        choices=("auto", "torch", "openvino"),
    ),
    ParameterSpec(
        "latency_frames",
        0,
        "How many following frames each frame waits for. 0: none; higher values increase accuracy and latency.",
        range=(0, 8),
    ),
    ParameterSpec(
        "max_depth",
        0.0,
        "Input depth above this limit, in metres, is invalid. 0: no limit.",
        range=(0.0, 10000.0),
        runtime=True,
    ),
    ParameterSpec(
        "edge_filter",
        0.0,
        "Removes flying pixels: pixels that float between two surfaces whose depths differ, within 3x3 pixels, by "
        "more than this share of the depth. 0: off; 0.03 suits clouds.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    ParameterSpec(
        "min_confidence",
        0.0,
        "Output pixels with a lower confidence become invalid. 0: off.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    ParameterSpec(
        "out_of_memory",
        "cpu",
        "What to do if memory runs out and clearing the temporal window does not help. cpu: move the model to the "
        "CPU; fallback_model: load that smaller checkpoint; joint_bilateral: continue without the network.",
        choices=("cpu", "fallback_model", "joint_bilateral"),
        runtime=True,
    ),
    ParameterSpec("fallback_model", "", "Smaller checkpoint to load with out_of_memory: fallback_model.", runtime=True),
    ParameterSpec("color_transport", "raw", "Transport of the colour images.", choices=("raw", "compressed")),
    ParameterSpec("depth_transport", "raw", "Transport of the depth images.", choices=("raw", "compressedDepth")),
    ParameterSpec(
        "depth_unit",
        0.0,
        "Metres per stored unit of input depth, for every encoding: for example 0.001, or 0.00390625 (1/256). 0: "
        "integers are millimetres, floating-point numbers are metres.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    ParameterSpec(
        "invalid_above",
        0.0,
        "Stored depth values (not metres) above this limit are invalid. 0: no limit; the integer 65535 is always "
        "invalid.",
        range=(0.0, 1e9),
        runtime=True,
    ),
    ParameterSpec(
        "max_image_pixels",
        4096 * 3072,
        "Images whose header announces more pixels are refused before they are decoded.",
        range=(1, 64_000_000),
        runtime=True,
    ),
    ParameterSpec(
        "color_rectified",
        True,
        "Whether the colour image is free of lens distortion. If false, clouds are undistorted with camera_info's D.",
        runtime=True,
    ),
    ParameterSpec(
        "registration",
        "auto",
        "Whether depth is reprojected into the colour camera's view. auto: depth with the frame_id and the aspect "
        "ratio of colour is used as it is; other depth is reprojected if both camera_infos and the extrinsics are "
        "known, and otherwise refused. registered: treat depth as registered, whatever its frame_id. reproject: "
        "always reproject.",
        choices=("auto", "registered", "reproject"),
        runtime=True,
    ),
    ParameterSpec(
        "extrinsics",
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        "Pose of the depth camera in the colour camera's optical frame: x y z in metres and quaternion x y z w. "
        "All zeros: not given; the node then looks the pose up in tf, if tf2_ros is installed.",
        runtime=True,
    ),
    ParameterSpec(
        "synchronizer",
        "own",
        "How colour and depth are paired. own: by nearest stamps; message_filters: by the package of that name; auto: "
        "message_filters if it is installed, otherwise own.",
        choices=("own", "message_filters", "auto"),
    ),
    ParameterSpec(
        "sync_slop",
        0.02,
        "Largest difference between the stamps of a colour and a depth image that form a pair, in seconds.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    ParameterSpec(
        "sync_queue_seconds",
        2.0,
        "How long an image waits in the queue for its partner, in seconds. Must exceed the delay between the two "
        "streams. At most 256 MB of each input are queued.",
        range=(0.05, 60.0),
    ),
    ParameterSpec(
        "use_arrival_time",
        False,
        "Pair images by arrival time, for drivers that do not set stamps. The output is stamped with the arrival time "
        "as well. sync_slop must cover the jitter of the arrival times.",
        runtime=True,
    ),
    ParameterSpec(
        "max_gap",
        1.0,
        "A longer pause between frames, in seconds, clears the temporal window. With a slow camera, the pause must "
        "also exceed 2.5 frame intervals.",
        range=(0.001, 3600.0),
        runtime=True,
    ),
    ParameterSpec(
        "max_age",
        0.0,
        "Frames that are older than this when their inference would start, in seconds by the node's clock, are "
        "dropped (set use_sim_time for recordings). 0: never.",
        range=(0.0, 3600.0),
        runtime=True,
    ),
    ParameterSpec(
        "depth_encoding",
        "32FC1",
        "Encoding of the output: 32FC1 metres (NaN invalid) or 16UC1 millimetres (0 invalid, saturating at 65.535 m).",
        choices=("32FC1", "16UC1"),
        runtime=True,
    ),
    ParameterSpec("points.color", True, "Publish XYZRGB clouds; if false, XYZ.", runtime=True),
    ParameterSpec(
        "points.stride", 1, "The cloud contains every N-th row and column of the image.", range=(1, 64), runtime=True
    ),
    ParameterSpec(
        "watchdog_seconds",
        DEFAULT_SECONDS,
        "The process ends (SIGALRM), with all stacks on stderr, if no Python code can run for this many seconds and "
        f"{GRACE_SECONDS} more, since a call holds Python's lock; {LOADING_SECONDS:.0f} while a model loads. 0: never.",
        range=(0.0, 3600.0),
        runtime=True,
    ),
)

_BY_NAME = {spec.name: spec for spec in PARAMETERS}


def settings_from(values: Mapping[str, Any]) -> SimpleNamespace:
    """The checked values as attributes; dots in names become underscores (``points_stride``).

    Args:
        values: by parameter name; missing ones take their defaults.

    Raises:
        ConfigError: a value is refused, or values contradict each other.
    """
    parsed = {spec.name: spec.parse(values.get(spec.name, spec.default)) for spec in PARAMETERS}
    if parsed["out_of_memory"] == "fallback_model" and not parsed["fallback_model"]:
        raise ConfigError("out_of_memory is fallback_model, so fallback_model must name a checkpoint")
    if parsed["method"] == "stdnet" and not parsed["model"]:
        raise ConfigError("method is stdnet, so model must name a checkpoint; or set method to auto or joint_bilateral")
    device = parsed["device"]
    if device not in ("auto", "cpu", "cuda") and not (device[:5] == "cuda:" and device[5:].isdigit()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    quaternion = parsed["extrinsics"][3:]
    if any(parsed["extrinsics"]) and abs(math.hypot(*quaternion) - 1.0) > 1e-2:
        raise ConfigError("the quaternion in extrinsics must have length 1 (order x y z qx qy qz qw)")
    return SimpleNamespace(**{name.replace(".", "_"): value for name, value in parsed.items()})


def depth_units(settings: SimpleNamespace) -> DepthUnits:
    """How stored depth is converted to metres."""
    return DepthUnits(settings.depth_unit or None, settings.invalid_above or None)


def refusal(current: Mapping[str, Any], changes: Mapping[str, Any], configured: bool) -> str | None:
    """Why a change is refused; None if it is accepted.

    Args:
        current: all current values by name.
        changes: the new values by name; names outside the table are not checked.
        configured: whether the node is configured; only runtime parameters may then change.
    """
    own = {name: value for name, value in changes.items() if name in _BY_NAME}
    try:
        for name, value in own.items():
            spec = _BY_NAME[name]
            same = spec.parse(value) == spec.parse(current.get(name, spec.default))
            if configured and not spec.runtime and not same:
                raise ConfigError(
                    f"{name} cannot change while the node is configured; clean it up first "
                    f"(ros2 lifecycle set <node> deactivate, then cleanup), set it, and configure again"
                )
        settings_from({**current, **own})
    except ConfigError as error:
        return str(error)
    return None


def declare(node) -> None:
    """Declare all parameters on a node, with descriptions and ranges.

    They are declared with dynamic types, since ROS would otherwise refuse ``max_gap: 1``; :func:`refusal` checks the
    type instead.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    for spec in PARAMETERS:
        descriptor = ParameterDescriptor(description=spec.description, dynamic_typing=True)
        if spec.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(spec.choices)
        if not spec.runtime:
            descriptor.additional_constraints = "; ".join(
                filter(None, [descriptor.additional_constraints, "changes take effect on configure"])
            )
        if spec.range is not None and isinstance(spec.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=spec.range[0], to_value=spec.range[1])]
        elif spec.range is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(spec.range[0]), to_value=int(spec.range[1]))]
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        node.declare_parameter(spec.name, default, descriptor)


def unknown_names(names: Sequence[str]) -> list[str]:
    """The override names that are not parameters of the node: misspelt names in a parameter file."""
    foreign = ("qos_overrides.", "use_sim_time", "start_type_description_service")
    return sorted(name for name in names if name not in _BY_NAME and not name.startswith(foreign))
