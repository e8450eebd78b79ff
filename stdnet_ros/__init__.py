"""ROS 2 side of the package: the live node, its parts, the demo and bag evaluation."""
