"""`resonate data`: recordings from elsewhere become what training reads, one command a file."""

from __future__ import annotations

import typer

from resonate_audio.cli import data_check, data_encode, data_import, data_mix, data_shard

app = typer.Typer(
    help="Bring recordings in from other corpora, mix, check and pack them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("import")(data_import.import_)
app.command()(data_mix.mix)
app.command()(data_check.check)
app.command()(data_shard.shard)
app.command()(data_shard.shards)
app.command()(data_encode.encode)
