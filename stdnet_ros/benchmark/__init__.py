"""Measures the node as users meet it: real processes on real ROS 2 transport (``python -m stdnet_ros.benchmark``)."""
