"""`resonate data`: recordings from elsewhere become what training reads, one command a file."""

from __future__ import annotations

import typer

from resonate_audio.cli.data import check, encode, import_, mix, shard

app = typer.Typer(
    help="Bring recordings in from other corpora, mix, check and pack them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("import")(import_.import_)
app.command()(mix.mix)
app.command()(check.check)
app.command()(shard.shard)
app.command()(shard.shards)
app.command()(encode.encode)
