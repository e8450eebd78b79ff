"""The reference of the node in docs: as generated, and what a running node has."""

from __future__ import annotations

import re

import pytest
from ros_fixtures import ROOT, NearestUpsampler, running_graph, wait_for

from stdnet_core.errors import ConfigError
from stdnet_ros.node import reference
from stdnet_ros.node.node import StdnetNode

TOPICS = (ROOT / "docs" / "topics.md").read_text()
PARAMETERS = (ROOT / "docs" / "parameters.md").read_text()
OF_EVERY_NODE = {"/rosout", "/parameter_events"}


def rows(heading: str) -> set[tuple[str, str]]:
    """Names and types in the table of a section of the page, with the names of a node /stdnet."""
    section = TOPICS.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| (\w+/\w+) \|", section, re.M)
    return {(re.sub(r"^(~|(?=\w))/?", lambda m: "/stdnet/" if m[1] else "/", name), kind) for name, kind in found}


def shown(names_and_types: list[tuple[str, list[str]]]) -> set[tuple[str, str]]:
    """The same of a graph, without what every node has."""
    short = {(name, re.sub(r"/(msg|srv)/", "/", kind)) for name, (kind,) in names_and_types}
    return {(n, k) for n, k in short if n not in OF_EVERY_NODE and not re.match("rcl_interfaces|type_desc", k)}


def test_pages_are_up_to_date():
    assert (reference.with_tables(TOPICS), reference.parameters_page()) == (TOPICS, PARAMETERS), (
        "run: python -m stdnet_ros.node.reference --write docs"
    )


def test_a_page_without_its_tables_is_refused():
    with pytest.raises(ConfigError, match="0 tables below a heading Outputs"):
        reference.with_tables(TOPICS.replace("## Outputs", "## What comes out"))


def test_topics_and_services_of_the_page_are_those_of_a_running_node():
    assert len(rows("Inputs")) == len(rows("Outputs")) == 6
    heard = set()
    for transports in ({}, {"color_transport": "compressed", "depth_transport": "compressedDepth"}):
        with running_graph(factory=lambda settings, **_: NearestUpsampler(), **transports) as graph:
            node = graph.node

            def served(node=node):
                return shown(node.get_service_names_and_types_by_node("stdnet", "/"))

            wait_for(lambda served=served: served() == rows("Services"), what=lambda served=served: str(served()))
            assert shown(node.get_publisher_names_and_types_by_node("stdnet", "/")) == rows("Outputs")
            heard |= shown(node.get_subscriber_names_and_types_by_node("stdnet", "/"))
    assert heard == rows("Inputs")


def test_parameters_of_the_page_are_those_of_a_running_node():
    with running_graph(factory=lambda settings, **_: NearestUpsampler(), start=False) as graph:
        node: StdnetNode = graph.node
        own = [name for name in node._parameters if not name.startswith("qos_overrides.")]
        declared = {name: node.describe_parameter(name) for name in own}
    table = {
        name: (limits, description)
        for name, limits, description in re.findall(
            r"^\| `([\w.]+)` \| \w+ \| `[^`]*` \| (.*?) \| (?:yes|no) \| (.*) \|$", PARAMETERS, re.M
        )
    }
    assert set(table) == set(declared) - {"use_sim_time", "start_type_description_service"}
    for name, (limits, description) in table.items():
        assert declared[name].description == description
        given = [*declared[name].floating_point_range, *declared[name].integer_range]
        assert [float(x) for x in limits.split(" to ") if given] == [
            x for r in given for x in (r.from_value, r.to_value)
        ]
