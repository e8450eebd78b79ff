"""``python -m stdnet_ros.node --ros-args -p model:=...`` starts the node without an installed package."""

from stdnet_ros.node import stopping

if __name__ == "__main__":
    stopping.prepare()  # before the other imports, which take seconds
    from stdnet_ros.node.node import main

    main()
