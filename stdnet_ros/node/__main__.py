"""``python -m stdnet_ros.node --ros-args -p model:=...``: the node without an installation."""

from stdnet_ros.node.node import main

if __name__ == "__main__":
    main()
