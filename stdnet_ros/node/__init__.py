"""The live node: its topics and services (``node``), parameters, pipeline and inference thread.

This module imports nothing, so that the parameter table and the help work without ROS."""
