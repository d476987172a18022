"""``python -m resonate_audio``: the `resonate` command, for launchers such as torchrun."""

from resonate_audio.cli.main import main

if __name__ == "__main__":
    main()
