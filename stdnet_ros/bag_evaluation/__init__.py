"""How good, how steady and how fast upsampling is on a recording: ``python -m stdnet_ros.evaluate_bag BAG``.

The deterministic run reads the bag itself and sees every frame (:mod:`.deterministic`); the live run replays it over
real topics into a node process and tells what made it in time (:mod:`.live`). Both end in the same report."""
