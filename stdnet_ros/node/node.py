"""The live node: colour and low-resolution depth in, depth at the colour image's resolution out.

A thin lifecycle node: it owns topics, parameters and services. Pairing is in
:mod:`stdnet_ros.synchronization.synchronizer`, everything that touches the model in :mod:`stdnet_ros.node.pipeline` on
the thread of :mod:`stdnet_ros.node.worker`.

Run it with ``ros2 run stdnet_ros stdnet_node`` or ``python -m stdnet_ros.node --ros-args -p model:=...``."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import wait
from types import SimpleNamespace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from stdnet_core.data.bags.ros_images import FrameError
from stdnet_core.errors import StdnetError
from stdnet_core.memory import GIVE_BACK_SECONDS, give_back_holes, keep_freed_memory
from stdnet_ros.messages import conversions
from stdnet_ros.messages.camera_info import CameraInfoError
from stdnet_ros.messages.info_messages import CameraInfoReader, CameraInfoWriter
from stdnet_ros.messages.point_cloud import CloudMemory, organized_cloud
from stdnet_ros.messages.serialized import read_compressed_image, read_image
from stdnet_ros.messages.transforms import make_transform_lookup
from stdnet_ros.node import parameters, stopping
from stdnet_ros.node.diagnostics import NodeStatistics, Throttle, diagnostic_array
from stdnet_ros.node.help import help_is_wanted, help_text
from stdnet_ros.node.pipeline import Pipeline, Reporter, Request, UpsampledFrame, make_upsampler
from stdnet_ros.node.worker import InferenceWorker
from stdnet_ros.synchronization.synchronizer import COLOR, DEPTH, STREAM_NAMES, make_synchronizer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RECEPTION_IS_TOLD = hasattr(Subscription, "CallbackType")
"""Whether callbacks can have the middleware's note on when a message came; not on Humble."""
UNKNOWN_RECEPTION = {"received_timestamp": 0}

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE

INPUT_DEPTH = 5
OUTPUT_DEPTH = 5
REFUSALS = 10
"""So many frames refused in a row are said in the diagnostics."""
EMPTY = 15
"""So many depth images in a row without a measurement, too."""
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
"""Policies of every topic that parameters may set."""
LAST_PATIENCE = 0.2
"""Seconds that an inference has to end when the process does."""
SILENCE_SECONDS = 2.0
"""An active node that hears nothing on an input, or hears both and pairs nothing, for this long says so."""
UNPAIRED = 3
"""So many images of each input have to have come since the last pair before that is said,"""
SURELY_UNPAIRED = 15
"""and from so many on it is said at once."""


def sensor_qos() -> QoSProfile:
    """Best effort, so that it matches every publisher; explicit depth, since defaults differ between middlewares."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=INPUT_DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def output_qos() -> QoSProfile:
    """Reliable, so that RViz and other default subscribers see it."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=OUTPUT_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


class StdnetNode(LifecycleNode):
    """Upsamples depth guided by colour and by the frames before.

    Args:
        name: default name of the node.
        upsampler_factory: what makes the upsampler from the settings; tests put a faulty one here.
        **arguments: of ``rclpy.node.Node`` (context, parameter_overrides, ...).

    Raises:
        ConfigError: a parameter override is refused.
    """

    def __init__(self, name: str = "stdnet", *, upsampler_factory=make_upsampler, **arguments: Any):
        super().__init__(name, **arguments)
        self._factory = upsampler_factory
        self._statistics = NodeStatistics()
        self._throttle = Throttle()
        self._cloud_memory = CloudMemory()
        self._info_writer = CameraInfoWriter()
        self._active = False
        self._enabled = True
        self.failure: str | None = None
        """Why the last configuration or activation failed."""
        self._refusals = 0
        self._refusal = ("", "")  # cause and sentence of the last one
        self._qos_problems: dict[str, str] = {}
        self._subscriptions_in_use: list[Subscription] = []
        self._latched: set[str] = set()
        self._synchronizer = None
        self._worker: InferenceWorker | None = None
        self._pipeline: Pipeline | None = None
        self._info_readers = (CameraInfoReader(), CameraInfoReader())
        self._last_seen = [0.0, 0.0]
        self._activated = self._last_pair = 0.0
        self._unpaired = [0, 0]
        self._served: bool | None = None  # as last said in the log
        self._first_is_out = False

        parameters.declare(self)
        self.settings = parameters.settings_from(self._parameter_values())
        for unknown in parameters.unknown_names(list(getattr(self, "_parameter_overrides", {}))):
            self.get_logger().warning(f"parameter {unknown} does not exist and is ignored; check its spelling")
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._lookup = make_transform_lookup(self)

        self._create_publishers()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Diagnostics must also come while simulated time stands still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)

    # Lifecycle

    def start(self) -> bool:
        """Configure and activate (autostart); False if that failed, with the reason in the log and diagnostics."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model on the inference thread and warm it up; FAILURE, with the reason, if it cannot be."""
        self.failure = None
        try:
            self.settings = parameters.settings_from(self._parameter_values())
            self._synchronizer = make_synchronizer(
                self.settings.synchronizer, self.settings.sync_slop, self.settings.sync_queue_seconds
            )
            self._worker = self._make_worker()
            self._pipeline = self._pipeline_of_worker()
        except Exception as error:
            reason = _reason(error)
            if isinstance(error, ImportError) and self.settings.synchronizer == "message_filters":
                reason = "message_filters is not installed; set synchronizer: own"
            self._fail(f"cannot configure: {reason}")
            self._release()
            return FAILURE
        upsampler = self._pipeline.upsampler
        place = upsampler.placement
        self.get_logger().info(f"configured: {upsampler.method} on {place.device} ({place.precision})")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; FAILURE, with the reason, if that is impossible (a quality of service that does not exist)."""
        self.failure = None
        try:
            self._create_subscriptions()
        except Exception as error:
            self._fail(f"cannot activate: {_reason(error)}")
            self._stop_input()
            return FAILURE
        self._activated = self._last_pair = time.monotonic()
        self._last_seen = [self._activated] * 2
        self._unpaired = [0, 0]
        self._refusals = 0
        self._served = None
        self._first_is_out = False
        self._active = True
        inputs = ", ".join(subscription.topic_name for subscription in self._subscriptions_in_use)
        self.get_logger().info(f"active: subscribed to {inputs}; publishes {self._output_names()}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let go of waiting frames; the model stays loaded."""
        self._stop_input()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and its thread."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a defect in a transition: release everything and be unconfigured again."""
        self.get_logger().error(f"a transition from {state.label} failed; the node is unconfigured again")
        self._release()
        return SUCCESS

    def destroy_node(self, patience: float = 5.0) -> None:
        """Stop the inference thread, waiting ``patience`` seconds for what it is at, then destroy the node."""
        self._release(patience)
        super().destroy_node()

    def _pipeline_of_worker(self) -> Pipeline:
        """Wait for the model, but not beyond the end of rclpy, which Ctrl-C and SIGTERM bring."""
        future = self._worker.call(self._make_pipeline)
        while not wait([future], timeout=0.05).done:
            if not self.context.ok():
                raise KeyboardInterrupt  # an Exception would be a failure to tell of
        return future.result()

    def _make_pipeline(self) -> Pipeline:
        reporter = Reporter(warn=self._warn, drop=self._statistics.drop, reset=self._statistics.reset)
        pipeline = Pipeline(self.settings, reporter, self._lookup, self._factory)
        pipeline.warm_up()
        return pipeline

    def _make_worker(self) -> InferenceWorker:
        # A worker that is left in an endless inference may end it in the next configuration's time.
        def handle(request: Request) -> None:
            self._handle(worker, request)

        worker = InferenceWorker(handle, self._on_handle_error)
        return worker

    def _stop_input(self) -> None:
        self._active = False
        for subscription in self._subscriptions_in_use:
            self.destroy_subscription(subscription)
        self._subscriptions_in_use.clear()
        self._latched.clear()
        self._info_readers = (CameraInfoReader(), CameraInfoReader())
        self._qos_problems.clear()
        if self._synchronizer is not None:
            self._synchronizer.clear()
        if self._worker is not None:
            if self._worker.discard() is not None:
                self._statistics.drop("inactive")
            if self._pipeline is not None:
                self._worker.call(self._pipeline.reset)

    def _release(self, patience: float = 5.0) -> None:
        self._stop_input()
        if self._worker is not None:
            self._worker.close(patience)
        if self._pipeline is not None:
            self._statistics.drop("window_reset", self._pipeline.waiting)  # 0 if the worker came to the reset
        if self._synchronizer is not None:
            for cause, count in self._synchronizer.drops.items():
                self._statistics.drop(cause, count)
        self._worker = self._pipeline = self._synchronizer = None

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self.get_logger().error(reason)

    # Topics

    def _create_publishers(self) -> None:
        def publisher(kind, topic):
            return self.create_lifecycle_publisher(
                kind, topic, output_qos(), qos_overriding_options=QoSOverridingOptions(OVERRIDABLE)
            )

        self._depth_publisher = publisher(Image, "~/depth/image")
        self._info_publisher = publisher(CameraInfo, "~/depth/camera_info")
        self._points_publisher = publisher(PointCloud2, "~/points")
        self._confidence_publisher = publisher(Image, "~/confidence")
        self._publishers_of_frames = (
            self._depth_publisher,
            self._info_publisher,
            self._points_publisher,
            self._confidence_publisher,
        )

    def _output_names(self) -> str:
        return ", ".join(publisher.topic_name for publisher in self._publishers_of_frames)

    def _create_subscriptions(self) -> None:
        settings = self.settings
        compressed_color = settings.color_transport == "compressed"
        compressed_depth = settings.depth_transport == "compressedDepth"
        # image_transport appends the transport to the remapped base name; so does this.
        color_topic = self.resolve_topic_name("color/image") + ("/compressed" if compressed_color else "")
        depth_topic = self.resolve_topic_name("depth/image") + ("/compressedDepth" if compressed_depth else "")
        # The executor handles what waits in this order: an image finds the camera_info that came with it.
        self._subscribe(CameraInfo, "color/camera_info", self._on_color_info)
        self._subscribe(CameraInfo, "depth/camera_info", self._on_depth_info)
        self._subscribe_images(CompressedImage if compressed_color else Image, color_topic, COLOR)
        self._subscribe_images(CompressedImage if compressed_depth else Image, depth_topic, DEPTH)

    def _subscribe_images(self, kind, topic: str, stream: int) -> None:
        read = read_image if kind is Image else read_compressed_image

        def on_message(serialized) -> None:
            self._on_image(stream, read, serialized, UNKNOWN_RECEPTION)

        def on_message_and_reception(serialized, reception) -> None:
            self._on_image(stream, read, serialized, reception)

        self._subscribe(kind, topic, on_message_and_reception if RECEPTION_IS_TOLD else on_message)

    def _subscribe_to_latched_infos(self) -> None:
        """Hear a camera_info that was published once and kept for whoever comes later.

        A subscription that takes kept messages hears nobody who keeps none, so it comes beside the usual one, where
        nothing was heard yet and a publisher keeps its messages."""
        if not self._active:
            return
        for stream, callback in ((COLOR, self._on_color_info), (DEPTH, self._on_depth_info)):
            topic = self.resolve_topic_name(f"{STREAM_NAMES[stream]}/camera_info")
            if self.infos[stream] is not None or topic in self._latched:
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
                self._latched.add(topic)
                qos = QoSProfile(
                    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
                )
                self._subscriptions_in_use.append(self.create_subscription(CameraInfo, topic, callback, qos, raw=True))

    def _subscribe(self, kind, topic: str, callback) -> None:
        def incompatible(event) -> None:
            name = self.resolve_topic_name(topic)
            self._qos_problems[name] = f"{event.total_count} publishers with incompatible QoS"
            self._warn(
                f"qos {name}",
                f"a publisher on {name} offers incompatible QoS; nothing is received from it. Set the parameters "
                f"qos_overrides.{name}.subscription.* to what it offers (ros2 topic info -v {name})",
            )

        subscription = self.create_subscription(
            kind,
            topic,
            callback,
            sensor_qos(),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
        )
        self._subscriptions_in_use.append(subscription)

    def _on_color_info(self, serialized: bytes) -> None:
        self._on_info(COLOR, serialized)

    def _on_depth_info(self, serialized: bytes) -> None:
        self._on_info(DEPTH, serialized)

    def _on_info(self, stream: int, serialized: bytes) -> None:
        try:
            self._info_readers[stream].take(serialized)
        except CameraInfoError as error:
            topic = f"{STREAM_NAMES[stream]}/camera_info"
            self._warn(f"damaged {topic}", f"{topic}: {error}; the one before stays in use")

    @property
    def infos(self) -> tuple[CameraInfo | None, CameraInfo | None]:
        """The newest camera_info of colour and of depth, None while none has come. Stamps may be older ones."""
        color, depth = (reader.info for reader in self._info_readers)
        return color, depth

    def _on_image(self, stream: int, read, serialized: bytes, reception: Mapping[str, int]) -> None:
        """Read the header, pair and post; nothing else happens on the executor's thread."""
        arrival = time.monotonic() - _seconds_since(reception)
        name = STREAM_NAMES[stream]
        self._statistics.received(name)
        self._last_seen[stream] = time.monotonic()
        if not self._active:
            self._statistics.drop(f"{name}_inactive")
        elif not self._enabled:
            self._statistics.drop(f"{name}_disabled")
        elif not self.has_subscribers():
            self._statistics.drop(f"{name}_no_subscriber")
        else:
            try:
                message = read(serialized, f"{name}_damaged", f"{name}/image")
            except FrameError as error:
                self._refuse(error)
                return
            stamp = message.header.stamp
            if self.settings.use_arrival_time:
                message.header.stamp = self.get_clock().now().to_msg()
                stamp_ns = time.time_ns() - round(1e9 * _seconds_since(reception))
            elif stamp.sec < 0:
                self._refuse(FrameError(f"{name}_damaged", f"{name}/image: the stamp lies before 1970"))
                return
            else:
                stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
            pairs = self._synchronizer.add(stream, stamp_ns, message, len(serialized))
            self._unpaired[stream] += 1
            if pairs:
                self._last_pair = time.monotonic()
                self._unpaired = [0, 0]
            for pair in pairs:
                self._statistics.paired()
                request = Request(pair, *self.infos, arrival)
                if self._worker.post(request) is not None:
                    self._statistics.drop("busy")

    def has_subscribers(self) -> bool:
        """Whether anybody listens to what the node makes; otherwise it does no work."""
        return any(publisher.get_subscription_count() for publisher in self._publishers_of_frames)

    # Inference thread

    def _handle(self, worker: InferenceWorker, request: Request) -> None:
        settings, pipeline = self.settings, self._pipeline
        age = self._age(request)
        if not self._active or worker is not self._worker or pipeline is None:
            self._statistics.drop("inactive")
            return
        if settings.max_age > 0 and age > settings.max_age:
            raise FrameError(
                "too_old",
                f"dropped a frame {age:.3f} s old (max_age is {settings.max_age:g} s); for recordings set use_sim_time",
            )
        frame = pipeline.process(request, settings)
        if pipeline is not self._pipeline:
            self._statistics.drop("inactive")
            return
        self._refusals = 0
        if frame is not None:
            self._statistics.inferred(frame.inference_seconds)
            self._publish(frame, settings)

    def _on_handle_error(self, request: Request, error: Exception) -> None:
        self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Count and say why a frame is not published."""
        if isinstance(error, FrameError):
            cause, text = error.cause, str(error)
        elif isinstance(error, StdnetError):
            cause, text = "refused", str(error)
        else:
            cause, text = "inference_error", f"inference failed: {type(error).__name__}: {error}"
        self._statistics.drop(cause)
        self._refusal = cause, text
        self._refusals += 1
        self._warn(cause, text)

    def _publish(self, frame: UpsampledFrame, settings: SimpleNamespace) -> None:
        if not self._active:
            self._statistics.drop("inactive")
            return
        header = frame.request.pair.color.header
        # camera_info first: whoever hears an image has what belongs to it. The largest message comes last.
        if frame.info is not None:
            self._info_publisher.publish(self._info_writer.serialized(frame.info))
        self._depth_publisher.publish(conversions.depth_to_image(frame.depth, header, settings.depth_encoding))
        if self._confidence_publisher.get_subscription_count():
            self._confidence_publisher.publish(conversions.array_to_image(frame.confidence, header, "32FC1"))
        if frame.info is not None and self._points_publisher.get_subscription_count():
            self._publish_points(frame, settings)
        processing = time.monotonic() - frame.request.arrival
        self._statistics.published(self._age(frame.request), processing)
        if not self._first_is_out:
            self._first_is_out = True
            height, width = frame.depth.shape
            self.get_logger().info(f"first frame published: {width}x{height} on {self._depth_publisher.topic_name}")

    def _publish_points(self, frame: UpsampledFrame, settings: SimpleNamespace) -> None:
        try:
            cloud = organized_cloud(
                frame.depth,
                frame.info,
                frame.request.pair.color.header,
                color=frame.color if settings.points_color else None,
                stride=settings.points_stride,
                rectified=settings.color_rectified,
                memory=self._cloud_memory,
            )
        except CameraInfoError as error:
            self._warn("no points", f"no points: {error}")
            return
        self._points_publisher.publish(cloud)

    def _age(self, request: Request) -> float:
        return (self.get_clock().now().nanoseconds - request.pair.color_stamp) / 1e9

    def _warn(self, key: str, text: str) -> None:
        if self._throttle.allows(key):
            self.get_logger().warning(text)

    # Parameters and services

    def _parameter_values(self) -> dict[str, Any]:
        return {spec.name: _plain(self.get_parameter(spec.name).value) for spec in parameters.PARAMETERS}

    def _on_set_parameters(self, changes) -> SetParametersResult:
        values = {change.name: _plain(change.value) for change in changes}
        current = self._parameter_values()
        reason = parameters.refusal(current, values, configured=self._worker is not None)
        if reason is not None:
            return SetParametersResult(successful=False, reason=reason)
        known = {name: value for name, value in values.items() if name in current}
        self.settings = parameters.settings_from({**current, **known})
        if self._synchronizer is not None:
            self._synchronizer.slop = self.settings.sync_slop
        return SetParametersResult(successful=True)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if not self._enabled:
            self._clear()
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._pipeline is None:
            response.success, response.message = False, "the node is not configured"
            return response
        self._clear()
        self._statistics.reset("service")
        response.success, response.message = True, "temporal window and waiting messages cleared"
        return response

    def _clear(self) -> None:
        if self._pipeline is None:
            return
        self._synchronizer.clear()
        if self._worker.discard() is not None:
            self._statistics.drop("cleared")
        self._worker.call(self._pipeline.reset)

    # Diagnostics

    @property
    def idle(self) -> bool:
        """Whether no pair waits for inference or is in it."""
        return self._worker is None or self._worker.idle

    def snapshot(self) -> dict:
        """What was counted and measured so far (see :mod:`stdnet_ros.node.diagnostics`), and what still ``waiting``."""
        snapshot = self._statistics.snapshot()
        color, depth = (0, 0) if self._synchronizer is None else self._synchronizer.waiting()
        window = 0 if self._pipeline is None else self._pipeline.waiting
        snapshot["waiting"] = {"color": color, "depth": depth, "window": window}
        if self._synchronizer is not None:
            for cause, count in self._synchronizer.drops.items():
                snapshot["drops"][cause] = snapshot["drops"].get(cause, 0) + count
        return snapshot

    def _publish_diagnostics(self) -> None:
        snapshot = self.snapshot()
        self._subscribe_to_latched_infos()
        self._tell_of_subscribers()
        level, summary, cause = self._condition()
        if cause:
            self._warn(cause, summary)
        details: dict[str, Any] = {"enabled": self._enabled}
        if self._pipeline is not None:
            details.update(self._pipeline.state())
        if self._synchronizer is not None:
            details["clock jumps"] = self._synchronizer.jumps
            offset = self._synchronizer.offset()
            if offset is not None:
                details["color minus depth stamp [s]"] = f"{offset:.4f}"
        for topic, problem in self._qos_problems.items():
            details[f"qos {topic}"] = problem
        details.update(self._connections())
        self._diagnostics.publish(
            diagnostic_array(
                self.get_fully_qualified_name(),
                level,
                summary,
                snapshot,
                details,
                self.get_clock().now().to_msg(),
            )
        )

    def _tell_of_subscribers(self) -> None:
        """Say when the node idles for want of a subscriber, and when one comes; otherwise it would look dead."""
        served = self.has_subscribers()
        if not self._active or served == self._served:
            return
        self._served = served
        if served:
            self.get_logger().info("a subscriber is there")
        else:
            self.get_logger().info(f"idle: nobody subscribes to {self._output_names()}")

    def _connections(self) -> dict[str, int]:
        """How many publishers each input has and how many subscribers each output."""
        inputs = {f"publishers of {s.topic_name}": self._publishers_of(s) for s in self._subscriptions_in_use}
        outputs = {f"subscribers of {p.topic_name}": p.get_subscription_count() for p in self._publishers_of_frames}
        return {**inputs, **outputs}

    def _publishers_of(self, subscription) -> int:
        if hasattr(subscription, "get_publisher_count"):
            return subscription.get_publisher_count()
        return self.count_publishers(subscription.topic_name)  # Humble

    def health(self) -> tuple[int, str]:
        """Diagnostic level (0 OK, 1 WARN, 2 ERROR) and one sentence."""
        return self._condition()[:2]

    def _condition(self) -> tuple[int, str, str]:
        """Level, sentence and, of a warning, its cause: the key of :meth:`_warn` where the cause has a line of its own,
        so that the log says each cause once."""
        if self.failure is not None:
            return 2, self.failure, ""
        if self._pipeline is None:
            return 0, "not configured", ""
        if not self._active:
            return 0, "inactive", ""
        if not self._enabled:
            return 0, "disabled by the enable service", ""
        silent = [time.monotonic() - seen > SILENCE_SECONDS for seen in self._last_seen]
        heard = [info is not None for info in self.infos] + [not is_silent for is_silent in silent]
        topics = [subscription.topic_name for subscription in self._subscriptions_in_use[:4]]  # camera_infos, images
        deaf = [topic for topic, hears in zip(topics, heard, strict=True) if topic in self._qos_problems and not hears]
        if deaf:
            return 1, f"incompatible QoS on {', '.join(deaf)}", f"qos {deaf[0]}"
        if any(silent):
            return 1, f"nothing received on {' and '.join(itertools.compress(topics[2:], silent))}", "silent"
        if not self.has_subscribers():
            return 0, "nobody subscribes: idle", ""
        waited = time.monotonic() - self._last_pair > SILENCE_SECONDS
        if min(self._unpaired) >= (UNPAIRED if waited else SURELY_UNPAIRED):
            return 1, f"nothing can be paired: {self._synchronizer.trouble()}", "unpaired"
        if self._refusals >= REFUSALS:
            cause, text = self._refusal
            return 1, f"the last {self._refusals} frames were refused: {text}", cause
        if self._pipeline.fallback:
            return 1, self._pipeline.fallback, "fallback"
        if self._pipeline.doubt:
            return 1, self._pipeline.doubt, "depth unit"
        if self._pipeline.empty >= EMPTY:
            empty = f"the last {self._pipeline.empty} depth images hold no measurement: the sensor is blind or off"
            return 1, empty, "empty"
        if self.infos[COLOR] is None and time.monotonic() - self._activated > SILENCE_SECONDS:
            return 1, "no camera_info for the colour image: no points", "no camera_info"
        return 0, "running", ""


def _reason(error: Exception) -> str:
    text = str(error)
    return text if text and isinstance(error, StdnetError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _seconds_since(reception: Mapping[str, int]) -> float:
    """Seconds since the middleware had the message whose rclpy info is given; 0 where it does not say."""
    received = reception["received_timestamp"]
    return max(0.0, (time.time_ns() - received) / 1e9) if received > 0 else 0.0


def _plain(value: Any) -> Any:
    """Parameter values without ROS's array types."""
    return value.tolist() if hasattr(value, "tolist") else value


def main(arguments: list[str] | None = None, *, upsampler_factory=make_upsampler) -> None:
    """Run the node until it is interrupted. Exit status 2 for parameters that are refused."""
    if help_is_wanted(arguments):
        print(help_text(), end="")
        return
    status = 0
    node = None
    started = False
    keep_freed_memory()
    try:
        rclpy.init(args=arguments)
        started = True
        stopping.in_order()
        node = StdnetNode(upsampler_factory=upsampler_factory)
        node.create_timer(GIVE_BACK_SECONDS, give_back_holes, clock=Clock(clock_type=ClockType.STEADY_TIME))
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.get_parameter("autostart").value:
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        if started and not rclpy.ok():
            pass  # a signal has shut rclpy down amid a call of it: the end that was asked for
        elif isinstance(error, StdnetError | ParameterException):
            print(f"error: {error}", file=sys.stderr)
            status = 2
        elif isinstance(error, RuntimeError) and node is None:
            # rcl refuses a malformed command line or parameter file with its own error type.
            print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
            status = 2
        else:
            raise
    finally:
        # A second Ctrl-C (the terminal's and the launch system's) must not interrupt the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node(patience=LAST_PATIENCE)
        if rclpy.ok():
            rclpy.shutdown()
    stopping.leave(status)
