"""Rubrics: ours or a user's text, with {places} for what is judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from verisight.types import ImageRef, UserError

_PLACE = re.compile(r"\{(\w*)\}")


def fill(
    scorer: str, template: str, values: Mapping[str, str], *, needed: Collection[str], accepted: Collection[str]
) -> str:
    """The text with its places filled once: a place in what is filled in stays as it is.

    Args:
        scorer: for messages.
        template: with {name} for each name of `needed`, and no others than `accepted`.
        values: by name.
        needed: names that have to be there.
        accepted: names that may be there.

    Raises:
        UserError: a place lacks, or isn't known.
    """
    places = _PLACE.findall(template)
    lacking = [name for name in needed if name not in places]
    other = [name for name in places if name not in accepted]
    if lacking or other:
        what = f"lacks {{{lacking[0]}}}" if lacking else f"has {{{other[0]}}}"
        told = ", ".join(f"{{{name}}}" for name in accepted)
        raise UserError(f"{scorer}: the rubric {what}; accepted are {told}")
    return _PLACE.sub(lambda match: values[match[1]], template)


def check_shown(scorer: str, uid: str, image: object, *, vision: bool, images: Sequence[ImageRef]) -> None:
    """Refuse a judge that should see a picture and was given none.

    Raises:
        UserError: that.
    """
    if vision and not images and image is not None:
        raise UserError(f"{scorer}: {uid} is about {image}, but the judge was given no picture of it")
