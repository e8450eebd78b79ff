"""``python -m stdnet_ros.node --ros-args -p model:=...``: the node without an installation."""

from stdnet_ros.node import stopping

if __name__ == "__main__":
    stopping.prepare()  # before the other imports, which take seconds
    from stdnet_ros.node.node import main

    main()
