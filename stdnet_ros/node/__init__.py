"""The live node: its topics and services (``node``), parameters, pipeline and inference thread.

Nothing is imported here, so that the table of parameters and the help need no ROS."""
