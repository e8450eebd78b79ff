"""The main job end to end: a camera, the node and a judge, three processes on real ROS 2 topics.

``python -m stdnet_ros.demo`` prepares an RGB-D stream, starts the three, and leaves pictures and numbers in a
folder. Ground truth never travels over a topic: it lies on disk, keyed by the stamps of the frames."""
