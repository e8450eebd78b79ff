"""Train a network: ``python -m stdnet_core.train``.

Without arguments, it trains the tiny preset on procedural scenes, on a GPU if there is one. An interrupted run resumes
where it stopped. See docs/training.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stdnet_core.cli import require, run_cli
from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.training.config import load_config, to_yaml


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog="python -m stdnet_core.train",
        description="Train a network. The same command resumes a run from its output folder.",
        epilog="Weights: OUTPUT/best.safetensors (by validation) and OUTPUT/last.safetensors.",
    )
    result.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the configuration")
    result.add_argument("--config", metavar="FILE", help="YAML file, or the name of a shipped one (paper_x8)")
    result.add_argument("--output", type=Path, default=Path("runs/train"), metavar="DIR", help="default: %(default)s")
    result.add_argument("--max-minutes", type=float, metavar="M", help="stop after M minutes; the run can be resumed")
    result.add_argument("--fresh", action="store_true", help="refuse to resume a run in the output folder")
    result.add_argument("--print-config", action="store_true", help="print the complete configuration and exit")
    result.add_argument("--resume-compact", type=Path, metavar="DIR", help="start from a compact state")
    result.add_argument("--export-compact", type=Path, metavar="DIR", help="at the end, write a compact state")
    result.add_argument(
        "--compact-mb", type=float, default=60.0, metavar="MB", help="its largest size (default: %(default)s)"
    )
    return result


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_intermixed_args(arguments)
    config = load_config(options.config, options.overrides, check_root=not options.print_config)
    if options.print_config:
        from stdnet_core.training.config import model_config
        from stdnet_core.training.module import loss_config

        model_config(config)
        loss_config(config)
        print(to_yaml(config), end="")
        return 0
    if options.max_minutes is not None and not options.max_minutes >= 0:
        raise ConfigError(f"--max-minutes is {options.max_minutes}; give 0 or more")
    for module in ("lightning", "tensorboard", "tqdm", "cv2"):
        require(module, extra="train")
    from stdnet_core.training import compact
    from stdnet_core.training import state as run_state
    from stdnet_core.training.run import is_first_process, run

    interrupted = False
    if options.max_minutes != 0:
        result = run(
            config,
            options.output,
            minutes=options.max_minutes,
            resume_compact=options.resume_compact,
            fresh=options.fresh,
        )
        interrupted = result.interrupted
        done = "finished" if result.finished else "stopped; the same command resumes it"
        print(
            f"steps {result.first_step} to {result.last_step} of {config.optim.steps} in {result.seconds / 60:.1f} "
            f"minutes, {done}; weights and state in {options.output}",
            file=sys.stderr,
        )
    if options.export_compact is not None and is_first_process():
        exact = options.output / run_state.FILE_NAME
        if not exact.is_file():
            raise CheckpointError(f"there is no run in {options.output} to export; train first")
        left_out = compact.write(options.export_compact, run_state.read(exact), options.compact_mb)
        note = f" without {', '.join(left_out)}" if left_out else ""
        print(f"compact state{note} in {options.export_compact}", file=sys.stderr)
    return 130 if interrupted else 0


if __name__ == "__main__":
    run_cli(main)
