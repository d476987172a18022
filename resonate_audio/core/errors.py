"""Every error a user can cause, drawn as one tree.

ResonateError
├── ConfigError          a recipe, preset or option has a bad value
├── InputError           a prompt, duration, seed or number is out of range
├── AudioError           an audio file cannot be read or written, or is not audio
├── CheckpointError      weights are missing, truncated, misshapen or not weights
├── ModelNotFoundError   no model of that name, folder or hub id
├── ManifestError        a manifest line is broken (file and line are named)
├── ShardError           a shard or its index is missing, truncated or of another version
├── OutputError          an output exists or is not writable; DiskFullError: the disk is full
├── WorkerError          a process of a cluster ended, again and again, before its work was done
├── ShapeError           an array does not have the axes the function needs
├── RewardError          a judge failed or gave something that is not a score; NoAnswerError: it
│                        cannot be reached, or gave nothing in time
├── TrainingError        a run cannot go on (NaN loss, no clip left, bad resume)
└── Cancelled            a callback asked to stop

The message says what came, what was expected and what to try, in one line.
"""

MAX_MESSAGE = 1_000
"""Letters that are shown of a message: what is named in it may be of any length."""


class ResonateError(Exception):
    """Base of everything that is the caller's to fix; the CLI exits 2 on it."""

    def __str__(self) -> str:
        """The message; of a long one its beginning, where the file stands, and its end."""
        text = super().__str__().encode("utf-8", "backslashreplace").decode()
        rest = MAX_MESSAGE // 4
        return text if len(text) <= MAX_MESSAGE else f"{text[: 3 * rest - 3]} … {text[-rest:]}"


class ConfigError(ResonateError):
    """A recipe, preset or option holds a value that cannot be used."""


class InputError(ResonateError):
    """A prompt, duration, seed or number is outside what the model takes."""


class AudioError(ResonateError):
    """An audio file cannot be read or written."""


class CheckpointError(ResonateError):
    """Weights are missing, truncated, of the wrong shape, or not weights at all."""


class ModelNotFoundError(ResonateError):
    """No bundled model, folder or hub repository goes by the name given."""


class ManifestError(ResonateError):
    """A manifest line cannot be used; the message names file and line."""


class ShardError(ResonateError):
    """A shard or its index is missing, truncated, damaged or of another version."""


class OutputError(ResonateError):
    """An output path exists already, cannot be written, or the disk is full."""


class DiskFullError(OutputError):
    """There is no room left on the disk, or in the quota, where something was to be written."""


class WorkerError(ResonateError):
    """A process that works for this one ended, again and again, before its work was done."""


class ShapeError(ResonateError):
    """An array does not have the axes that the function needs."""


class RewardError(ResonateError):
    """A judge did not give one finite score a row; nothing is put in their place."""


class NoAnswerError(RewardError):
    """A judge cannot be reached or gave nothing in time: asking about another sound is no use."""


class TrainingError(ResonateError):
    """A training run cannot go on."""


class Cancelled(ResonateError):
    """A callback asked for the work to stop."""
