"""Installation: one ROS 2 package (ament_python) with two Python packages in it."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "stdnet_ros"

# A robot needs no more than this; what training, reports or export need beyond it are extras.
RUNTIME = ["numpy>=1.24", "torch>=2.2", "safetensors>=0.4", "opencv-python-headless>=4.5"]
BAGS = ["rosbags>=0.10", "mcap>=1.6,<2", "zstandard>=0.21", "pyyaml>=6", "tqdm>=4.60"]
ROS = [
    "ros-rclpy>=9.1,<10",
    "ros-rmw-fastrtps-cpp>=9.3,<10",
    "ros-sensor-msgs>=5.5,<6",
    "ros-std-msgs>=5.5,<6",
    "ros-std-srvs>=5.5,<6",
    "ros-geometry-msgs>=5.5,<6",
    "ros-diagnostic-msgs>=5.5,<6",
    "ros-lifecycle-msgs>=2.3,<3",
    "ros-rcl-interfaces>=2.3,<3",
    "ros-rosgraph-msgs>=2.3,<3",
    "ros-ament-index-python>=1.11,<2",
]
TRAIN = ["lightning>=2.4,<3", "torchmetrics>=1.4", "omegaconf>=2.3", "tensorboard>=2.14", "tqdm>=4.60", "pillow>=10"]
REPORT = ["matplotlib>=3.7", "jinja2>=3.1", "pillow>=10", "imageio-ffmpeg>=0.4.9", "tqdm>=4.60"]
REALSENSE = ["pyrealsense2>=2.50"]  # its filters, for comparison; a camera is not needed
EXPORT = ["onnx>=1.16", "onnxscript>=0.7", "onnxruntime>=1.18"]
OPENVINO = ["openvino>=2025.0"]
DOCS = [
    f"{name}; python_version >= '3.11'"
    for name in ("mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27")
]
DEV = [
    "pytest>=7,<9",
    "pytest-cov>=7",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "ruff>=0.5",
    "hypothesis>=6.90",
    "mypy>=2.4",
    "types-tqdm>=4.60",
    "colcon-common-extensions",
    "colcon-ros",
]

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Dense, metric, temporally stable depth from sparse depth and RGB video: STDNet for ROS 2",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The stdnet_ros authors",
    maintainer="The stdnet_ros authors",
    maintainer_email="stdnet-ros@example.org",
    license="Apache-2.0",
    packages=find_packages(include=["stdnet_core", "stdnet_core.*", "stdnet_ros", "stdnet_ros.*"]),
    package_data={
        "stdnet_core": ["py.typed", "weights/*.safetensors", "weights/*.md", "report/templates/*"],
        "stdnet_ros": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.py")),
        (f"share/{PACKAGE}/config", [p for p in glob("config/*") if "." in p.rsplit("/", 1)[-1]]),
        (f"share/{PACKAGE}/config/train", glob("config/train/*.*")),
    ],
    python_requires=">=3.10",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    install_requires=RUNTIME,
    extras_require={
        "ros": ROS,
        "bags": BAGS,
        "train": [*TRAIN, *BAGS],
        "report": [*REPORT, *BAGS],
        "export": EXPORT,
        "openvino": OPENVINO,
        "realsense": REALSENSE,
        "docs": DOCS,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": [
            "stdnet_node = stdnet_ros.node.command:main",
            "evaluate_bag = stdnet_ros.evaluate_bag:main",
            "stdnet_demo = stdnet_ros.demo.__main__:main",
        ],
    },
    zip_safe=False,
)
