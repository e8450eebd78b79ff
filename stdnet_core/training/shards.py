"""Packs recorded clips, or any folder, into a few files of limited size, to copy them to another machine.

A shard is a plain zip archive of unchanged sequence folders (stored without compression, because colour and depth are
compressed already). ``python -m stdnet_core.training.shards pack FOLDER OUT`` creates shards, ``unpack`` unpacks them.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stdnet_core.cli import run_cli
from stdnet_core.errors import DataError

NAME = "clips"
PATTERN = NAME + "_*.zip"


def pack(folder: str | Path, output: str | Path, max_mb: float = 45.0, name: str = NAME) -> list[Path]:
    """Pack every file below ``folder``, in the order of their paths.

    Args:
        max_mb: size limit of a shard, in 10^6 bytes.
        name: prefix of the shards' names; earlier shards with this prefix are deleted.

    Returns:
        The shards, in order.

    Raises:
        DataError: nothing to pack, or a single file exceeds the limit.
    """
    folder, output = Path(folder), Path(output)
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no files to pack; give a folder of sequences")
    limit = max_mb * 1e6
    shards: list[list[Path]] = [[]]
    used = 0.0
    for path in files:
        size = path.stat().st_size + 300 + 2 * len(str(path))  # with the file's entries in the archive
        if size > limit:
            raise DataError(f"{path} has {size / 1e6:.0f} MB, which exceeds the limit of {max_mb:g} MB per shard")
        if used + size > limit:
            shards.append([])
            used = 0.0
        shards[-1].append(path)
        used += size
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob(f"{name}_*.zip"):
        old.unlink()
    written = []
    for number, content in enumerate(tqdm(shards, desc="packing", unit="shard")):
        target = output / f"{name}_{number:03d}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for path in content:
                archive.write(path, path.relative_to(folder).as_posix())
        written.append(target)
    return written


def unpack(folder: str | Path, output: str | Path, name: str = NAME) -> int:
    """Unpack all shards with the prefix ``name`` in ``folder`` into ``output``.

    Returns:
        The number of files.

    Raises:
        DataError: there are no shards, or one is damaged or names files outside ``output``.
    """
    folder, output = Path(folder), Path(output)
    shards = sorted(folder.glob(f"{name}_*.zip"))
    if not shards:
        raise DataError(f"{folder} holds no shards ({name}_*.zip); create them with stdnet_core.training.shards pack")
    count = 0
    for shard in tqdm(shards, desc="unpacking", unit="shard"):
        try:
            with zipfile.ZipFile(shard) as archive:
                for member in archive.namelist():
                    path = PurePosixPath(member)
                    if path.is_absolute() or ".." in path.parts:
                        raise DataError(
                            f"{shard} names a file outside its folder ({member}); it is not a shard of this tool"
                        )
                archive.extractall(output)
                count += len(archive.namelist())
        except zipfile.BadZipFile as error:
            raise DataError(f"{shard} is damaged ({error}); copy it again") from error
    return count


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stdnet_core.training.shards", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("pack", "unpack"):
        options = commands.add_parser(command)
        options.add_argument("folder", type=Path)
        options.add_argument("output", type=Path)
        if command == "pack":
            options.add_argument("--max-mb", type=float, default=45.0)
    chosen = parser.parse_args(arguments)
    if chosen.command == "pack":
        shards = pack(chosen.folder, chosen.output, chosen.max_mb)
        print(f"{len(shards)} shards in {chosen.output}")
    else:
        print(f"{unpack(chosen.folder, chosen.output)} files in {chosen.output}")


if __name__ == "__main__":
    run_cli(main)
