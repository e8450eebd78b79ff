"""The demo: a camera, the node and a receiver, as three processes over real ROS 2 topics.

``python -m stdnet_ros.demo`` prepares an RGB-D stream, runs the three processes, and writes pictures and figures to a
folder. Ground truth is not sent over a topic: the receiver reads it from disk and matches it by the frames' stamps."""
