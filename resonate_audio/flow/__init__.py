"""The maths of flow matching; knows only ``Velocity = Callable[[z, t], v]``."""
