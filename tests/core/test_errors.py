"""One tree of errors, and its drawing."""

import re

from resonate_audio.core import errors


def test_the_drawing_names_every_error() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    defined = {item.__name__ for item in errors.ResonateError.__subclasses__()}
    assert drawn == {name for name in defined if getattr(errors, name, None)}


def test_every_error_is_a_resonate_error() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    assert all(issubclass(item, errors.ResonateError) for item in classes)
