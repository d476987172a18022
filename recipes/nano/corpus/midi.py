"""The smallest MIDI writer: timed messages in one track."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_BEAT = 480
TICKS_PER_S = 960
"""At 120 beats per minute, which the tempo event below sets."""


@dataclass
class Track:
    """Messages with their times; ties keep ends of notes before beginnings."""

    messages: list[tuple[float, int, bytes]] = field(default_factory=list)

    def note(
        self, start_s: float, length_s: float, key: int, velocity: int, channel: int = 0
    ) -> None:
        """One note."""
        self.messages.append((start_s, 1, bytes([0x90 | channel, key, velocity])))
        self.messages.append((start_s + length_s, 0, bytes([0x80 | channel, key, 0])))

    def silence(self, time_s: float, channel: int = 0) -> None:
        """Cut whatever still sounds."""
        self.messages.append((time_s, 0, bytes([0xB0 | channel, 120, 0])))

    def program(self, time_s: float, number: int, channel: int = 0) -> None:
        """Choose the instrument."""
        self.messages.append((time_s, 0, bytes([0xC0 | channel, number])))

    def to_bytes(self) -> bytes:
        """A standard MIDI file, format 0."""
        body = b"\x00\xff\x51\x03\x07\xa1\x20"
        tick = 0
        for time_s, _, message in sorted(self.messages, key=lambda m: (m[0], m[1])):
            due = round(time_s * TICKS_PER_S)
            body += variable_length(max(0, due - tick)) + message
            tick = max(tick, due)
        body += b"\x00\xff\x2f\x00"
        head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_BEAT)
        return head + struct.pack(">4sI", b"MTrk", len(body)) + body

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(self.to_bytes())


def variable_length(number: int) -> bytes:
    """Seven bits a byte, the high bit set on all but the last."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))
