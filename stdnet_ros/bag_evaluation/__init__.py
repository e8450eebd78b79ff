"""Evaluates depth upsampling on a recording: ``python -m stdnet_ros.evaluate_bag BAG``.

The deterministic run reads the bag directly and processes every frame (:mod:`.deterministic`). The live run replays the
bag over real topics to a node process and measures which frames are processed in time (:mod:`.live`). Both write the
same kind of report: accuracy, temporal stability and speed."""
