"""The node on a real ROS graph: what it publishes, its lifecycle, parameters, services and diagnostics."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from ros_fixtures import ROOT, NearestUpsampler, camera_info, image, running_graph, stamp_message, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from stdnet_ros.messages.serialized import read_image
from stdnet_ros.node import node as node_module
from stdnet_ros.node import parameters
from stdnet_ros.node.node import UNKNOWN_RECEPTION
from stdnet_ros.synchronization.synchronizer import COLOR, DEPTH


def stand_in(**arguments):
    """A factory that gives one :class:`NearestUpsampler` and keeps it as ``.made``."""

    def factory(settings, **changes):
        factory.made = NearestUpsampler(latency=settings.latency_frames, **arguments)
        return factory.made

    return factory


def call(graph, kind, service, request):
    """The answer of a service, waited for from the test's thread."""
    client = graph.partner.create_client(kind, service)
    assert client.wait_for_service(timeout_sec=30.0)
    future = client.call_async(request)
    wait_for(future.done)
    graph.partner.destroy_client(client)
    return future.result()


def set_parameters(graph, **values):
    """Set parameters through the service; the result with its reason."""
    parameters_ = [Parameter(n.replace("__", "."), value=v).to_parameter_msg() for n, v in values.items()]
    request = SetParametersAtomically.Request(parameters=parameters_)
    return call(graph, SetParametersAtomically, "/stdnet/set_parameters_atomically", request).result


def transition(graph, number):
    """Whether the lifecycle service made the transition."""
    request = ChangeState.Request(transition=Transition(id=number))
    return call(graph, ChangeState, "/stdnet/change_state", request).success


def state(graph):
    """Label of the lifecycle state."""
    return call(graph, GetState, "/stdnet/get_state", GetState.Request()).current_state.label


def depth_of(message):
    return np.frombuffer(message.data.tobytes(), np.float32).reshape(message.height, message.width)


def test_depth_camera_info_and_cloud_of_the_real_upsampler():
    with running_graph(method="bilinear") as graph:
        graph.listen(cloud=True)
        graph.connect()
        for index in range(3):
            graph.send(10.0 + index / 30, size=(64, 48), metres=1.5 + index / 4)
            wait_for(lambda n=index: len(graph.clouds) > n)
        wait_for(lambda: len(graph.infos) == len(graph.depths) == 3)
        for index, (depth, info, cloud) in enumerate(zip(graph.depths, graph.infos, graph.clouds, strict=True)):
            for message in (depth, info, cloud):
                assert message.header.frame_id == "camera"
                assert message.header.stamp == stamp_message(10.0 + index / 30)
            assert (depth.encoding, depth.width, depth.height, depth.step) == ("32FC1", 64, 48, 256)
            np.testing.assert_allclose(depth_of(depth), 1.5 + index / 4, rtol=1e-5)
            assert (info.width, info.height) == (64, 48)
            assert info.k[2] == 31.5
            assert (cloud.width, cloud.height, cloud.point_step) == (64, 48, 16)
        snapshot = graph.settle(published=3)
        assert snapshot["totals"] == {"color": 3, "depth": 3, "pairs": 3, "published": 3}
        assert snapshot["drops"] == {}


def test_nothing_is_computed_without_a_subscriber():
    factory = stand_in()
    with running_graph(factory=factory) as graph:
        graph.connect()
        warmed = factory.made.steps
        for index in range(5):
            graph.send(1.0 + index / 30)
        snapshot = graph.settle(color=5, depth=5)
        assert factory.made.steps == warmed
        assert snapshot["totals"]["pairs"] == 0
        assert snapshot["drops"] == {"color_no_subscriber": 5, "depth_no_subscriber": 5}
        # A subscriber that comes is served, and one that goes ends the work.
        subscription = graph.partner.create_subscription(Image, "stdnet/depth/image", graph.depths.append, 10)
        wait_for(graph.node.has_subscribers)
        graph.send(2.0)
        wait_for(lambda: len(graph.depths) == 1)
        graph.partner.destroy_subscription(subscription)
        wait_for(lambda: not graph.node.has_subscribers())
        graph.send(2.1)
        assert graph.settle(color=7, depth=7)["totals"]["published"] == 1


def test_the_log_says_what_the_node_does(monkeypatch):
    said = []
    logger = rclpy.logging.get_logger("stdnet")
    monkeypatch.setattr(logger, "info", lambda text, **_: said.append(text))
    monkeypatch.setattr(node_module.StdnetNode, "get_logger", lambda self: logger)

    def waits_for(text: str) -> str:
        wait_for(lambda: any(text in line for line in said), what=lambda: f"{text!r} in {said}")
        return next(line for line in said if text in line)

    with running_graph(factory=stand_in()) as graph:
        active = waits_for("active:")
        assert "subscribed to /color/camera_info, /depth/camera_info, /color/image, /depth/image" in active
        assert "publishes /stdnet/depth/image, /stdnet/depth/camera_info, /stdnet/points, /stdnet/confidence" in active
        waits_for("idle: nobody subscribes to /stdnet/depth/image")
        graph.listen()
        graph.connect()
        waits_for("an output has a subscriber: processing")
        for index in range(3):
            graph.send(1.0 + index / 30)
            graph.settle(published=index + 1)
        waits_for("first frame published: 32x24 on /stdnet/depth/image")
        assert len([line for line in said if "first frame" in line]) == 1


def test_the_executable_helps_without_ros_and_says_what_is_missing(tmp_path):
    (tmp_path / "rclpy.py").write_text("raise ImportError('no ROS here')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def run(*arguments):
        command = [sys.executable, "-m", "stdnet_ros.node.command", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    helped, started = run("--help"), run()
    assert helped.returncode == 0
    assert helped.stdout.startswith("usage: stdnet_node")
    assert started.returncode == 2
    assert "'rclpy' (no ROS here)" in started.stderr
    assert "[ros]'" in started.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_topics_and_parameters_and_starts_nothing(option, capsys, monkeypatch):
    monkeypatch.setattr(node_module.rclpy, "init", lambda **_: pytest.fail("started"))
    node_module.main([option])
    printed = capsys.readouterr().out
    assert all(f"  {spec.name}:=" in printed for spec in parameters.PARAMETERS)
    for topic in ("color/image", "depth/camera_info", "~/depth/image", "~/points", "example:"):
        assert topic in printed


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_sixteen_bit_input_and_output(encoding):
    with running_graph(factory=stand_in(), depth_encoding=encoding, depth_unit=0.0005) as graph:
        graph.listen()
        graph.connect()
        header = Header(stamp=stamp_message(5.0), frame_id="camera")
        units = np.full((6, 8), 3000, np.uint16)
        units[0, 0] = 0
        graph.publisher("color/image").publish(image(np.zeros((24, 32, 3), np.uint8), "bgr8", header))
        graph.publisher("depth/image").publish(image(units, "16UC1", header))
        wait_for(lambda: graph.depths)
        out = graph.depths[0]
        assert out.encoding == encoding
        if encoding == "16UC1":
            samples = np.frombuffer(out.data.tobytes(), np.uint16).reshape(24, 32)
            assert samples[0, 0] == 0
            assert samples[10, 10] == 1500
        else:
            assert np.isnan(depth_of(out)[0, 0])
            assert depth_of(out)[10, 10] == pytest.approx(1.5)


def test_compressed_inputs_follow_image_transport_names():
    import struct

    import cv2

    with running_graph(factory=stand_in(), color_transport="compressed", depth_transport="compressedDepth") as graph:
        graph.listen()
        color = graph.publisher("color/image/compressed", CompressedImage)
        depth = graph.publisher("depth/image/compressedDepth", CompressedImage)
        wait_for(lambda: color.get_subscription_count() and depth.get_subscription_count())
        wait_for(graph.node.has_subscribers)
        header = Header(stamp=stamp_message(5.0), frame_id="camera")
        jpeg = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
        png = struct.pack("<iff", 0, 0.0, 0.0) + cv2.imencode(".png", np.full((6, 8), 2000, np.uint16))[1].tobytes()
        color.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg))
        depth.publish(CompressedImage(header=header, format="16UC1; compressedDepth png", data=png))
        wait_for(lambda: graph.depths)
        np.testing.assert_allclose(depth_of(graph.depths[0]), 2.0, rtol=1e-6)


def test_latency_frames_publish_each_frame_with_its_own_stamp():
    with running_graph(factory=stand_in(), latency_frames=2) as graph:
        graph.listen()
        graph.connect()
        for index in range(6):
            graph.send(1.0 + index / 30, metres=1.0 + index)
            graph.settle(pairs=index + 1)
        wait_for(lambda: len(graph.depths) == 4)
        for index, message in enumerate(graph.depths):
            assert message.header.stamp == stamp_message(1.0 + index / 30)
            assert depth_of(message)[0, 0] == 1.0 + index
        graph.send(500.0)  # the gap clears the window: the two that waited are dropped, and counted
        snapshot = graph.settle(pairs=7)
        assert snapshot["drops"] == {"window_reset": 2}
        assert snapshot["resets"] == {"gap": 1}


def test_lifecycle_over_its_services():
    with running_graph(factory=stand_in(), start=False, autostart=False) as graph:
        assert state(graph) == "unconfigured"
        assert transition(graph, Transition.TRANSITION_CONFIGURE)
        assert state(graph) == "inactive"
        assert graph.partner.count_subscribers("/color/image") == 0
        assert transition(graph, Transition.TRANSITION_ACTIVATE)
        graph.listen()
        graph.connect()
        graph.send(1.0)
        wait_for(lambda: len(graph.depths) == 1)
        assert transition(graph, Transition.TRANSITION_DEACTIVATE)
        graph.send(1.1)
        assert transition(graph, Transition.TRANSITION_CLEANUP)
        assert state(graph) == "unconfigured"
        assert transition(graph, Transition.TRANSITION_CONFIGURE)
        assert transition(graph, Transition.TRANSITION_ACTIVATE)
        graph.connect()
        graph.send(1.2)
        wait_for(lambda: len(graph.depths) == 2)
        assert graph.depths[1].header.stamp == stamp_message(1.2)


def test_a_missing_checkpoint_fails_to_configure_and_can_be_corrected(tmp_path):
    missing = str(tmp_path / "none.safetensors")
    with running_graph(start=False, model=missing) as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        assert not transition(graph, Transition.TRANSITION_CONFIGURE)
        assert state(graph) == "unconfigured"
        assert "none.safetensors" in graph.node.failure
        wait_for(lambda: any("none.safetensors" in m.status[0].message for m in seen))
        assert seen[-1].status[0].level == b"\x02"
        assert set_parameters(graph, model="", method="nearest").successful
        assert transition(graph, Transition.TRANSITION_CONFIGURE)


def test_parameters_at_run_time():
    with running_graph(factory=stand_in(), max_gap=2) as graph:
        accepted = set_parameters(graph, max_age=1, sync_slop=0.05, points__stride=2, edge_filter=0.03)
        assert accepted.successful, accepted.reason
        settings = graph.node.settings
        assert (settings.max_age, settings.max_gap, settings.points_stride) == (1.0, 2.0, 2)
        for values, words in (
            ({"points__stride": 0}, "range"),
            ({"max_gap": -1.0}, "range"),
            ({"max_gap": -1}, "between"),
            ({"max_age": "old"}, "number"),
            ({"depth_encoding": "32FC3"}, "one of"),
            ({"latency_frames": 3}, "configured"),
            ({"device": "cuda"}, "configured"),
            ({"extrinsics": [0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]}, "quaternion"),
            ({"extrinsics": [1.0, 2.0]}, "7"),
            ({"out_of_memory": "fallback_model"}, "fallback_model"),
            ({"points__color": 1}, "bool"),
            ({"max_age": 5.0, "points__stride": 99}, "range"),
        ):
            result = set_parameters(graph, **values)
            assert not result.successful, values
            assert words in result.reason, (values, result.reason)
        assert graph.node.settings == settings
        # The same value is no change; the model can be named again without a refusal.
        assert set_parameters(graph, latency_frames=0, device="auto").successful


def test_parameters_are_described_and_ranged():
    with running_graph(factory=stand_in(), start=False) as graph:
        request = DescribeParameters.Request(names=[spec.name for spec in parameters.PARAMETERS])
        described = call(graph, DescribeParameters, "/stdnet/describe_parameters", request).descriptors
        assert all(len(descriptor.description) > 15 for descriptor in described)
        ranges = {d.name: (*d.floating_point_range, *d.integer_range) for d in described}
        assert ranges["max_gap"][0].to_value == 3600.0
        assert ranges["points.stride"][0].from_value == 1


def test_parameter_storm_while_inference_runs():
    """Parameter services answer while the inference thread is busy, and no frame breaks."""
    with running_graph(factory=stand_in(before=lambda: time.sleep(0.15))) as graph:
        graph.listen()
        graph.connect()
        slowest = 0.0
        for index in range(40):
            graph.send(1.0 + index / 30)
            started = time.monotonic()
            assert set_parameters(
                graph, points__stride=1 + index % 5, depth_encoding=("32FC1", "16UC1")[index % 2]
            ).successful
            slowest = max(slowest, time.monotonic() - started)
        snapshot = graph.settle(pairs=40)
        assert slowest < 1.0
        assert snapshot["drops"].keys() <= {"busy"}
        assert snapshot["totals"]["published"] + snapshot["drops"].get("busy", 0) == 40


def test_enable_and_reset_services():
    factory = stand_in()
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        graph.settle(published=1)
        assert call(graph, SetBool, "/stdnet/enable", SetBool.Request(data=False)).success
        graph.send(1.1)
        snapshot = graph.settle(color=2, depth=2)
        assert snapshot["drops"] == {"color_disabled": 1, "depth_disabled": 1}
        assert call(graph, SetBool, "/stdnet/enable", SetBool.Request(data=True)).success
        graph.send(1.2)
        graph.settle(published=2)
        resets = factory.made.resets
        assert call(graph, Trigger, "/stdnet/reset", Trigger.Request()).success
        wait_for(lambda: factory.made.resets == resets + 1)


def test_reset_before_configure_says_why_not():
    with running_graph(factory=stand_in(), start=False) as graph:
        answer = call(graph, Trigger, "/stdnet/reset", Trigger.Request())
        assert not answer.success
        assert "configured" in answer.message


def test_diagnostics_balance_and_name_the_device():
    with running_graph(method="nearest") as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        graph.listen()
        graph.connect()
        for index in range(10):
            graph.send(1.0 + index / 30)
            graph.settle(pairs=index + 1)
        seen.clear()
        wait_for(lambda: seen)
        status = seen[0].status[0]
        values = {pair.key: pair.value for pair in status.values}
        assert status.name.startswith("/stdnet")
        assert (values["method"], values["device"], values["precision"]) == ("nearest", "cpu", "fp32")
        assert values["total color"] == values["total depth"] == values["total pairs"] == "10"
        assert values["total published"] == "10"
        assert float(values["latency inference p95 [ms]"]) > 0
        assert float(values["rate color [Hz]"]) > 0
        # 1 Hz, whatever the ROS clock does.
        wait_for(lambda: len(seen) >= 2)
        assert 0.8 < _seconds(seen[1].header.stamp) - _seconds(seen[0].header.stamp) < 1.3


def test_the_network_runs_with_openvino_once_it_is_compiled_and_no_frame_waits_for_it():
    pytest.importorskip("openvino")
    with running_graph(method="stdnet", model="live", device="cpu", precision="fp32") as graph:  # backend: auto
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        graph.listen()
        graph.connect()

        def values():
            return {pair.key: pair.value for pair in seen[-1].status[0].values}

        graph.send(1.0, size=(64, 48))
        wait_for(lambda: graph.depths and seen)
        assert (values()["method"], values()["device"], values()["backend"]) == ("stdnet", "cpu", "torch")
        sent = 1
        deadline = time.monotonic() + 120
        while values()["backend"] == "torch" and time.monotonic() < deadline:
            graph.send(1.0 + 0.1 * sent, size=(64, 48))
            sent += 1
            wait_for(lambda: len(graph.depths) == sent)  # noqa: B023  # evaluated at once
            time.sleep(0.05)
        assert values()["backend"] == "openvino"
        for image in (graph.depths[0], graph.depths[-1]):
            np.testing.assert_allclose(depth_of(image), 2.0, rtol=1e-3)


def _seconds(stamp):
    return stamp.sec + stamp.nanosec / 1e9


def test_frames_older_than_max_age_are_dropped_by_simulated_time():
    from rosgraph_msgs.msg import Clock

    with running_graph(factory=stand_in(), max_age=0.5, use_sim_time=True) as graph:
        graph.listen()
        graph.connect()
        clock = graph.partner.create_publisher(Clock, "/clock", 10)
        wait_for(lambda: clock.get_subscription_count())

        def now(seconds):
            clock.publish(Clock(clock=stamp_message(seconds)))
            wait_for(lambda: abs(graph.node.get_clock().now().nanoseconds / 1e9 - seconds) < 1e-6)

        now(100.2)
        graph.send(100.0)
        graph.settle(published=1)
        now(110.0)
        graph.send(100.1)
        snapshot = graph.settle(pairs=2)
        assert snapshot["drops"] == {"too_old": 1}


def test_topics_follow_namespace_and_remapping():
    from stdnet_ros.node.node import StdnetNode

    context = rclpy.Context()
    rclpy.init(context=context)
    arguments = ["--ros-args", "-r", "__ns:=/robot", "-r", "__node:=depth_net", "-r", "color/image:=/cam/rgb"]
    node = StdnetNode(context=context, cli_args=arguments, upsampler_factory=stand_in())
    try:
        assert node.start()
        topics = {s.topic_name for s in node.subscriptions}
        assert {"/cam/rgb", "/robot/depth/image", "/robot/color/camera_info"} <= topics
        published = {p.topic_name for p in node.publishers}
        names = {"depth/image", "depth/camera_info", "points", "confidence"}
        assert {f"/robot/depth_net/{name}" for name in names} <= published
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_quality_of_service_can_be_overridden_and_mismatch_is_said():
    reliability = "qos_overrides./color/image.subscription.reliability"
    values = {reliability: "reliable", "qos_overrides./stdnet/points.publisher.reliability": "best_effort"}
    with running_graph(factory=stand_in(), **values) as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        points = graph.node.get_publishers_info_by_topic("/stdnet/points")
        assert points[0].qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        graph.partner.create_publisher(Image, "color/image", best_effort)
        wait_for(lambda: any("/color/image" in m.status[0].message for m in seen))
        assert seen[-1].status[0].level == b"\x01"


def test_a_mismatch_is_no_warning_any_more_once_another_publisher_is_heard():
    with running_graph(
        factory=stand_in(), **{"qos_overrides./color/image.subscription.reliability": "reliable"}
    ) as graph:
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        wrong = graph.partner.create_publisher(Image, "color/image", best_effort)
        graph.listen()
        graph.connect()
        wait_for(lambda: "QoS" in graph.node.health()[1])
        graph.partner.destroy_publisher(wrong)
        graph.send(1.0)
        graph.settle(published=1)
        assert graph.node.health() == (0, "running")


def test_durability_can_be_overridden_and_nonsense_fails_to_activate():
    name = "qos_overrides./stdnet/depth/image.publisher.durability"
    with running_graph(factory=stand_in(), **{name: "transient_local"}) as graph:
        out = graph.node.get_publishers_info_by_topic("/stdnet/depth/image")[0].qos_profile
        assert out.durability == DurabilityPolicy.TRANSIENT_LOCAL
    nonsense = {"qos_overrides./color/image.subscription.reliability": "bogus"}
    with running_graph(factory=stand_in(), start=False, autostart=False, **nonsense) as graph:
        assert transition(graph, Transition.TRANSITION_CONFIGURE)
        assert not transition(graph, Transition.TRANSITION_ACTIVATE)
        assert state(graph) == "inactive"
        assert "bogus" in graph.node.failure
        assert graph.node.health() == (2, graph.node.failure)
        assert graph.partner.count_subscribers("/color/camera_info") == 0


def test_counters_outlive_a_configuration():
    with running_graph(factory=stand_in(), latency_frames=2) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        graph.settle(pairs=1)
        graph.publisher("color/image").publish(image(np.zeros((24, 32, 3), np.uint8), "rgb8", Header()))
        wait_for(lambda: graph.node.snapshot()["totals"]["color"] == 2)
        for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert transition(graph, number)
        drops = graph.node.snapshot()["drops"]
        assert drops == {"color_cleared": 1, "window_reset": 1}
        assert transition(graph, Transition.TRANSITION_CONFIGURE)
        assert graph.node.snapshot()["drops"] == drops


def test_an_inference_that_outlives_its_configuration_publishes_nothing():
    gate = threading.Event()
    gate.set()
    with running_graph(factory=stand_in(before=lambda: gate.wait(60.0))) as graph:
        graph.listen()
        graph.connect()
        gate.clear()
        graph.send(1.0)
        wait_for(lambda: graph.node.snapshot()["totals"]["pairs"] == 1)
        assert transition(graph, Transition.TRANSITION_DEACTIVATE)
        assert transition(graph, Transition.TRANSITION_CLEANUP)  # gives up on the thread after 5 s
        graph.node._factory = stand_in()
        assert transition(graph, Transition.TRANSITION_CONFIGURE)
        assert transition(graph, Transition.TRANSITION_ACTIVATE)
        gate.set()
        wait_for(lambda: graph.node.snapshot()["drops"].get("inactive") == 1)
        graph.connect()
        graph.send(2.0)
        graph.settle(published=1)
        wait_for(lambda: len(graph.depths) == 1)
        assert graph.depths[0].header.stamp == stamp_message(2.0)


def test_outputs_are_reliable_and_inputs_take_best_effort():
    with running_graph(factory=stand_in()) as graph:
        out = graph.node.get_publishers_info_by_topic("/stdnet/depth/image")[0].qos_profile
        assert out.reliability == ReliabilityPolicy.RELIABLE
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        publisher = graph.partner.create_publisher(Image, "color/image", best_effort)
        wait_for(publisher.get_subscription_count)


def test_frames_posted_while_busy_are_replaced_and_counted():
    gate = threading.Event()
    gate.set()
    with running_graph(factory=stand_in(before=lambda: gate.wait(10.0))) as graph:
        graph.listen()
        graph.connect()
        gate.clear()
        for index in range(20):
            graph.send(1.0 + index / 30)
            wait_for(lambda n=index: graph.node.snapshot()["totals"]["pairs"] == n + 1)
        gate.set()
        snapshot = graph.settle(pairs=20)
        # The one in work and the newest one are published; what came between was replaced.
        wait_for(lambda: len(graph.depths) == snapshot["totals"]["published"])
        assert graph.depths[-1].header.stamp == stamp_message(1.0 + 19 / 30)
        assert snapshot["totals"]["published"] + snapshot["drops"]["busy"] == 20
        assert snapshot["totals"]["published"] <= 4


def test_camera_info_goes_out_before_its_image_and_the_cloud_last():
    with running_graph(factory=stand_in()) as graph:
        graph.listen(cloud=True)
        graph.connect()
        sent = []
        for publisher in graph.node._publishers_of_frames:

            def publish(message, genuine=publisher.publish, topic=publisher.topic_name):
                sent.append(topic)
                genuine(message)

            publisher.publish = publish
        wait_for(lambda: graph.node._points_publisher.get_subscription_count() > 0)
        graph.send(1.0)
        graph.settle(published=1)
        assert sent == ["/stdnet/depth/camera_info", "/stdnet/depth/image", "/stdnet/points"]


def test_time_in_the_node_begins_when_the_middleware_has_the_message():
    """A pair that waited 3 s for the executor has been in the node for 3 s; without a time of reception, for 0."""
    with running_graph(factory=stand_in()) as graph:
        graph.listen()
        for index, waited in enumerate((3.0, None)):
            message = image(np.ones((24, 32), np.float32), "32FC1", Header(stamp=stamp_message(1.0 + index)))
            color = image(np.zeros((24, 32, 3), np.uint8), "rgb8", message.header)
            wait_for(graph.node.has_subscribers)
            received = {"received_timestamp": time.time_ns() - int(waited * 1e9)} if waited else UNKNOWN_RECEPTION
            graph.node._on_image(COLOR, read_image, serialize_message(color), UNKNOWN_RECEPTION)
            graph.node._on_image(DEPTH, read_image, serialize_message(message), received)
            graph.settle(published=index + 1)
        latency = graph.node.snapshot()["latencies"]["node"]
        assert latency[99] > 2900
        assert latency[99] - 2 * (latency[99] - latency[50]) < 2900


@pytest.mark.parametrize("told", [True, False])
def test_images_are_heard_whether_or_not_rclpy_tells_when_they_came(told, monkeypatch):
    """Humble's rclpy does not."""
    monkeypatch.setattr(node_module, "RECEPTION_IS_TOLD", told)
    with running_graph(factory=stand_in()) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        assert graph.settle(published=1)["latencies"]["node"][50] > 0


def test_the_warm_up_has_a_ratio_that_the_network_takes():
    sizes = []

    class Eightfold(NearestUpsampler):
        info = SimpleNamespace(scales=(8, 16))

        def step(self, rgb, depth, stamp=None):
            sizes.append((rgb.shape[0] / depth.shape[0], rgb.shape[1] / depth.shape[1]))
            return super().step(rgb, depth, stamp)

    with running_graph(factory=lambda settings, **changes: Eightfold()):
        assert sizes == [(8.0, 8.0)]


def test_confidence_image():
    with running_graph(factory=stand_in()) as graph:
        seen = []
        graph.partner.create_subscription(Image, "stdnet/confidence", seen.append, 10)
        graph.connect()
        wait_for(graph.node.has_subscribers)
        graph.send(1.0)
        wait_for(lambda: seen)
        assert seen[0].encoding == "32FC1"
        np.testing.assert_array_equal(depth_of(seen[0]), 1.0)


def test_unregistered_depth_is_refused_then_reprojected_with_extrinsics():
    with running_graph(factory=stand_in()) as graph:
        graph.listen()
        graph.publisher("depth/camera_info", CameraInfo)
        graph.connect()
        graph.send(1.0, depth_frame="depth_camera")
        snapshot = graph.settle(pairs=1)
        assert snapshot["drops"] == {"not_registered": 1}
        # Shifted by 0.2 m at 2 m and f = 30: the image moves by 3 px, uncovering the left edge.
        assert set_parameters(graph, extrinsics=[0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).successful
        header = Header(stamp=stamp_message(2.0), frame_id="depth_camera")
        graph.publisher("depth/camera_info").publish(camera_info(32, 24, header))
        wait_for(lambda: graph.node.infos[1] is not None)
        graph.send(2.0, scale=1, depth_frame="depth_camera")
        wait_for(lambda: graph.depths)
        depth = depth_of(graph.depths[0])
        assert np.isnan(depth[:, :3]).all()
        np.testing.assert_allclose(depth[:, 4:], 2.0, rtol=1e-6)


def test_cloud_obeys_stride_and_color_parameters():
    with running_graph(factory=stand_in(), points__stride=4, points__color=False) as graph:
        graph.partner.create_subscription(PointCloud2, "stdnet/points", graph.clouds.append, 10)
        graph.connect()
        wait_for(graph.node.has_subscribers)
        graph.send(1.0)
        wait_for(lambda: graph.clouds)
        cloud = graph.clouds[0]
        assert (cloud.width, cloud.height, cloud.point_step) == (8, 6, 12)
