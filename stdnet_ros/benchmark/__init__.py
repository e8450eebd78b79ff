"""Measures the node in real processes over real ROS 2 transport (``python -m stdnet_ros.benchmark``)."""
