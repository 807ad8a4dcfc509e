"""The split of YouTube Faces into frames for training and for testing."""

import hashlib
from collections.abc import Collection
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["FrameSplit", "Video", "split_frames"]

_NUM_TRAINING_PEOPLE = 954
_NUM_TEST_PEOPLE = 641
# For each person. No video of the data set is shorter.
_NUM_FRAMES = 48


class Video(NamedTuple):
    """One video of a person.

    Attributes:
        person: String. The person's name, as the folder is called.
        number: Integer. The video's number among those of the person.
    """

    person: str
    number: int


class FrameSplit(NamedTuple):
    """The frames to train and to test on, of different people.

    Attributes:
        rule: String, `"paper"` or `"all_frames"`.
        train: Dictionary from each `Video` to integers. The numbers of the
            frames to train on.
        test: Dictionary from each `Video` to integers. The numbers of the
            frames to test on.
    """

    rule: str
    train: dict[Video, list[int]]
    test: dict[Video, list[int]]


def split_frames(frames: Mapping[Video, Collection[int]]) -> FrameSplit:
    """Applies the paper's rule where it can be, or else a simpler one.

    People are in the order of the SHA-256 digests of their names, which is as
    good as a random one, the same everywhere, and leaves people in their
    places where others are added.

        paper         1,595 people have a video of 48 frames or more: 48 of one
                      video of each, 954 people for training and the next 641
                      for testing. The video is the first such one by number;
                      the frames are evenly spaced, from the first one on
        all_frames    otherwise: every frame, 954 / 1595 of the people for
                      training, rounded

    The paper (Section 4.2) gives the numbers, but does not say which people,
    videos and frames it took, nor how many of them were for validation.

    Args:
        frames: Mapping from each `Video` to integers. The numbers of its
            frames.

    Raises:
        ValueError: If there are fewer than two people.
    """
    long_videos: dict[str, Video] = {}
    for video in sorted(frames):
        if len(frames[video]) >= _NUM_FRAMES:
            long_videos.setdefault(video.person, video)
    if len(long_videos) >= _NUM_TRAINING_PEOPLE + _NUM_TEST_PEOPLE:
        return _paper_split(frames, long_videos)
    return _all_frames_split(frames)


def _paper_split(
    frames: Mapping[Video, Collection[int]], videos: Mapping[str, Video]
) -> FrameSplit:
    chosen = [
        (videos[person], _evenly_spaced(sorted(frames[videos[person]])))
        for person in _shuffled(videos)
    ]
    end = _NUM_TRAINING_PEOPLE + _NUM_TEST_PEOPLE
    return FrameSplit(
        "paper",
        dict(chosen[:_NUM_TRAINING_PEOPLE]),
        dict(chosen[_NUM_TRAINING_PEOPLE:end]),
    )


def _all_frames_split(frames: Mapping[Video, Collection[int]]) -> FrameSplit:
    people = _shuffled({video.person for video in frames})
    if len(people) < 2:
        raise ValueError(
            "YouTube Faces must hold frames of at least two people, some to "
            f"train and others to test on. Received: {people} only."
        )
    fraction = _NUM_TRAINING_PEOPLE / (_NUM_TRAINING_PEOPLE + _NUM_TEST_PEOPLE)
    training = set(people[: round(fraction * len(people))])
    everything = {video: sorted(frames[video]) for video in sorted(frames)}
    return FrameSplit(
        "all_frames",
        {v: n for v, n in everything.items() if v.person in training},
        {v: n for v, n in everything.items() if v.person not in training},
    )


def _shuffled(people: Collection[str]) -> list[str]:
    return sorted(
        people, key=lambda name: hashlib.sha256(name.encode("utf-8")).digest()
    )


def _evenly_spaced(numbers: list[int]) -> list[int]:
    return [
        numbers[i * len(numbers) // _NUM_FRAMES] for i in range(_NUM_FRAMES)
    ]
