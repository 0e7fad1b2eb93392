"""The classes of the scenes.

Owns the names and ids of the reference data set's 35 classes; knows nothing about drawing.
"""

from __future__ import annotations

from enum import IntEnum

# Source: the data card of segments/sidewalk-semantic (Hugging Face hub), table "Data categories", in id order.
SIDEWALK_CLASSES: list[str] = [
    "unlabeled",
    "flat-road",
    "flat-sidewalk",
    "flat-crosswalk",
    "flat-cyclinglane",
    "flat-parkingdriveway",
    "flat-railtrack",
    "flat-curb",
    "human-person",
    "human-rider",
    "vehicle-car",
    "vehicle-truck",
    "vehicle-bus",
    "vehicle-tramtrain",
    "vehicle-motorcycle",
    "vehicle-bicycle",
    "vehicle-caravan",
    "vehicle-cartrailer",
    "construction-building",
    "construction-door",
    "construction-wall",
    "construction-fenceguardrail",
    "construction-bridge",
    "construction-tunnel",
    "construction-stairs",
    "object-pole",
    "object-trafficsign",
    "object-trafficlight",
    "nature-vegetation",
    "nature-terrain",
    "sky",
    "void-ground",
    "void-dynamic",
    "void-static",
    "void-unclear",
]


class Label(IntEnum):
    """The same ids under names for the code that draws."""

    UNLABELED = 0
    ROAD = 1
    SIDEWALK = 2
    CROSSWALK = 3
    CYCLING_LANE = 4
    PARKING = 5
    RAIL_TRACK = 6
    CURB = 7
    PERSON = 8
    RIDER = 9
    CAR = 10
    TRUCK = 11
    BUS = 12
    TRAM = 13
    MOTORCYCLE = 14
    BICYCLE = 15
    CARAVAN = 16
    TRAILER = 17
    BUILDING = 18
    DOOR = 19
    WALL = 20
    FENCE = 21
    BRIDGE = 22
    TUNNEL = 23
    STAIRS = 24
    POLE = 25
    TRAFFIC_SIGN = 26
    TRAFFIC_LIGHT = 27
    VEGETATION = 28
    TERRAIN = 29
    SKY = 30
    VOID_GROUND = 31
    VOID_DYNAMIC = 32
    VOID_STATIC = 33
    VOID_UNCLEAR = 34
