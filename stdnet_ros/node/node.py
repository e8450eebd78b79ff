"""The live node: upsamples low-resolution depth to the resolution of the colour image.

It is a thin lifecycle node, which owns topics, parameters and services. Pairing is in
:mod:`stdnet_ros.synchronization.synchronizer`. Everything that uses the model is in :mod:`stdnet_ros.node.pipeline` and
runs on the thread of :mod:`stdnet_ros.node.worker`.

Run it with ``ros2 run stdnet_ros stdnet_node`` or ``python -m stdnet_ros.node --ros-args -p model:=...``."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from contextlib import AbstractContextManager, nullcontext
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
from stdnet_ros.node.watchdog import DEFAULT_SECONDS, Watchdog
from stdnet_ros.node.worker import InferenceWorker
from stdnet_ros.synchronization.synchronizer import COLOR, DEPTH, STREAM_NAMES, make_synchronizer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RECEPTION_IS_TOLD = hasattr(Subscription, "CallbackType")
"""Whether callbacks can get the middleware's reception time of a message; not on Humble."""
UNKNOWN_RECEPTION = {"received_timestamp": 0}

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE

INPUT_DEPTH = 5
OUTPUT_DEPTH = 5
REFUSALS = 10
"""The diagnostics warn after this many refused frames in a row."""
EMPTY = 15
"""The diagnostics warn after this many depth images in a row without a measurement."""
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
"""Policies that parameters may override for every topic."""
LAST_PATIENCE = 0.2
"""How many seconds the process waits, when it ends, for a running inference."""
SILENCE_SECONDS = 2.0
"""An active node warns if, for this long, an input receives nothing, or both inputs receive and no pair is made."""
UNPAIRED = 3
"""Least number of images of each input since the last pair for the warning that nothing is paired."""
SURELY_UNPAIRED = 15
"""With this many images of each input since the last pair, the node warns without waiting ``SILENCE_SECONDS``."""


def sensor_qos() -> QoSProfile:
    """Best effort, which matches every publisher; the depth is explicit, since defaults differ between middlewares."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=INPUT_DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def output_qos() -> QoSProfile:
    """Reliable, which also matches RViz and other subscribers with default settings."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=OUTPUT_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


class StdnetNode(LifecycleNode):
    """Upsamples depth, guided by colour and by previous frames.

    Args:
        name: default name of the node.
        upsampler_factory: creates the upsampler from the settings; tests pass a faulty one.
        **arguments: passed to ``rclpy.node.Node`` (context, parameter_overrides, ...).

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
        self.loading: Callable[[], AbstractContextManager] = nullcontext
        """Wraps the loading of a model, which may hold Python's lock for long."""
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
        self._served: bool | None = None  # as last logged
        self._first_is_out = False

        parameters.declare(self)
        self.settings = parameters.settings_from(self._parameter_values())
        for unknown in parameters.unknown_names(list(getattr(self, "_parameter_overrides", {}))):
            self.get_logger().warning(f"parameter {unknown} does not exist and is ignored; check its spelling")
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._lookup = make_transform_lookup(self)

        self._create_publishers()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Diagnostics must be published even while simulated time stands still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)

    # Lifecycle

    def start(self) -> bool:
        """Configure and activate (autostart); False if this failed. The reason is then in the log and diagnostics."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model on the inference thread and warm it up; FAILURE, with the reason logged, if this fails."""
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
        """Subscribe; FAILURE, with the reason logged, if this fails (a quality of service that does not exist)."""
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
        """Unsubscribe and drop the waiting frames; the model stays loaded."""
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
        """After an exception in a transition: release everything and return to unconfigured."""
        self.get_logger().error(f"a transition from {state.label} failed; the node is unconfigured again")
        self._release()
        return SUCCESS

    def destroy_node(self, patience: float = 5.0) -> None:
        """Stop the inference thread, waiting ``patience`` seconds for a running inference, and destroy the node."""
        self._release(patience)
        super().destroy_node()

    def _pipeline_of_worker(self) -> Pipeline:
        """Wait for the model, but only until rclpy is shut down, as Ctrl-C and SIGTERM do."""
        future = self._worker.call(self._make_pipeline)
        while not wait([future], timeout=0.05).done:
            if not self.context.ok():
                raise KeyboardInterrupt  # an Exception would be reported as a failed configuration
        return future.result()

    def _make_pipeline(self) -> Pipeline:
        reporter = Reporter(warn=self._warn, drop=self._statistics.drop, reset=self._statistics.reset)
        with self.loading():
            pipeline = Pipeline(self.settings, reporter, self._lookup, self._factory)
            pipeline.warm_up()
        return pipeline

    def _make_worker(self) -> InferenceWorker:
        # A worker that was abandoned in a long inference may finish it during the next configuration.
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
            self._statistics.drop("window_reset", self._pipeline.waiting)  # 0 if the worker has run the reset
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
        # As in image_transport, the transport is appended to the remapped base name.
        color_topic = self.resolve_topic_name("color/image") + ("/compressed" if compressed_color else "")
        depth_topic = self.resolve_topic_name("depth/image") + ("/compressedDepth" if compressed_depth else "")
        # The executor runs waiting callbacks in this order, so an image finds the camera_info that came with it.
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
        """Receive a camera_info that was published once, before this node subscribed (transient local).

        A transient-local subscription does not match volatile publishers. It is therefore created in addition to the
        usual one, and only if no camera_info has been received and a publisher is transient local."""
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
            self._warn(f"damaged {topic}", f"{topic}: {error}; the previous one stays in use")

    @property
    def infos(self) -> tuple[CameraInfo | None, CameraInfo | None]:
        """The newest camera_info of colour and of depth, None before the first. Their stamps may be out of date."""
        color, depth = (reader.info for reader in self._info_readers)
        return color, depth

    def _on_image(self, stream: int, read, serialized: bytes, reception: Mapping[str, int]) -> None:
        """Read the header, pair, and post the pair to the worker; the executor thread does nothing else."""
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
                self._refuse(FrameError(f"{name}_damaged", f"{name}/image: the stamp is before 1970"))
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
        """Whether any output has a subscriber; if not, the node does no work."""
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
                f"dropped a frame that was {age:.3f} s old (max_age is {settings.max_age:g} s); for recordings, "
                f"set use_sim_time",
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
        """Count, and log with throttling, why a frame is not published."""
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
        # camera_info first, so that a subscriber has it when the image arrives; the largest message last.
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
            self._warn("no points", f"points are not published: {error}")
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
        response.success, response.message = True, "temporal window and queued messages cleared"
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
        """Whether no pair is waiting for inference or being processed."""
        return self._worker is None or self._worker.idle

    def snapshot(self) -> dict:
        """The statistics so far (see :mod:`stdnet_ros.node.diagnostics`), and how many frames are still ``waiting``."""
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
        """Log when the node starts to idle because no output has a subscriber, and when the first one subscribes."""
        served = self.has_subscribers()
        if not self._active or served == self._served:
            return
        self._served = served
        if served:
            self.get_logger().info("an output has a subscriber: processing")
        else:
            self.get_logger().info(f"idle: nobody subscribes to {self._output_names()}")

    def _connections(self) -> dict[str, int]:
        """The number of publishers of each input and of subscribers of each output."""
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
        """Diagnostic level, sentence, and the cause of a warning (else empty).

        The cause is the key under which :meth:`_warn` throttles it. It is the same key as that of the warning which
        is logged when the problem occurs, so that the log does not repeat it."""
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
            empty = f"the last {self._pipeline.empty} depth images hold no measurement: the sensor is covered or off"
            return 1, empty, "empty"
        if self.infos[COLOR] is None and time.monotonic() - self._activated > SILENCE_SECONDS:
            return 1, "no camera_info for the colour image: points are not published", "no camera_info"
        return 0, "running", ""


def _reason(error: Exception) -> str:
    text = str(error)
    return text if text and isinstance(error, StdnetError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _seconds_since(reception: Mapping[str, int]) -> float:
    """Seconds since the middleware received the message with this rclpy info; 0 if it does not report the time."""
    received = reception["received_timestamp"]
    return max(0.0, (time.time_ns() - received) / 1e9) if received > 0 else 0.0


def _plain(value: Any) -> Any:
    """A parameter value, with ROS's array types converted to lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def main(arguments: list[str] | None = None, *, upsampler_factory=make_upsampler) -> None:
    """Run the node until it is interrupted. The exit status is 2 if parameters are refused."""
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
        watchdog = Watchdog(lambda: DEFAULT_SECONDS) if stopping.prepared() else None  # creating a node may block, too
        node = StdnetNode(upsampler_factory=upsampler_factory)
        if watchdog is not None:
            watchdog.seconds = lambda: node.settings.watchdog_seconds
            node.loading = watchdog.loading
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
            pass  # a signal shut rclpy down during a call to it: this is the requested end
        elif isinstance(error, StdnetError | ParameterException):
            print(f"error: {error}", file=sys.stderr)
            status = 2
        elif isinstance(error, RuntimeError) and node is None:
            # rcl's own error for a malformed command line or parameter file.
            print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
            status = 2
        else:
            raise
    finally:
        # A second Ctrl-C (the terminal and the launch system each send one) must not interrupt the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node(patience=LAST_PATIENCE)
        if rclpy.ok():
            rclpy.shutdown()
    stopping.leave(status)
