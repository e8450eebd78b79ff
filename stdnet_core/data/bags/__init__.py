"""Recordings of ROS 2 and ROS 1, read without ROS: files, the topics in them, image messages as arrays."""
