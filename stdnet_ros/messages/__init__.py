"""ROS messages: images and camera_info from the wire and back, point clouds, and the geometry that they describe."""
