"""ROS messages: reads and writes images, camera_info and point clouds, and handles the camera geometry in them."""
