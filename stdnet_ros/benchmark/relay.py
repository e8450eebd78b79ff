"""The baseline: a minimal rclpy process with the node's traffic. It receives colour and depth and republishes depth."""

from __future__ import annotations

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image

from stdnet_ros.benchmark.topics import DEPTH_OUT, NAMESPACE
from stdnet_ros.node.node import output_qos, sensor_qos


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("relay", namespace=NAMESPACE)
    publisher = node.create_publisher(Image, DEPTH_OUT, output_qos())
    inlets = [
        node.create_subscription(Image, "color/image", lambda message: None, sensor_qos()),
        node.create_subscription(Image, "depth/image", publisher.publish, sensor_qos()),
    ]
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        for inlet in inlets:
            node.destroy_subscription(inlet)
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
