"""Rebuild the corpus that nano was trained on, from public packages and repositories.

The steps, in order, each a module: ``fetch`` and ``unpack`` bring the sources, ``render`` plays
soundfonts, ``rules`` and ``candidates`` name what each file holds, ``process`` makes clips of
files, ``choose`` leaves duplicates out and splits the rest, ``captions`` words them and ``pack``
writes shards and a manifest. All choices follow from hashes of names: there is no random state.
"""
