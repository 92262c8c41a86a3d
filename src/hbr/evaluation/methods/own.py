"""Models of hbr as a method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hbr.evaluation.methods.base import MethodError, MethodOutcome, Report
from hbr.evaluation.methods.config import HbrConfig
from hbr.evaluation.methods.resizing import Pixels, wanted_size
from hbr.evaluation.methods.result_folder import RestorePixels, ResultFolder, identity, run_each


class HbrMethod:
    """`hbr.Restorer` over the inputs."""

    def __init__(self, config: HbrConfig) -> None:
        """Take the configuration; the model is loaded when there is something to restore."""
        self.config = config

    def run(
        self,
        inputs: Mapping[str, Path],
        out: Path,
        *,
        resume: bool = True,
        report: Report = lambda line: None,
    ) -> MethodOutcome:
        """See `hbr.evaluation.methods.base.Method`."""
        from hbr.weights import find_and_hash_model

        try:
            file, digest = find_and_hash_model(self.config.model)
        except (ValueError, OSError) as error:
            raise MethodError(str(error)) from error
        who = identity(self.config, sha256=digest)
        with ResultFolder(out, who, inputs, resume=resume) as results:
            failed = run_each(results, inputs, lambda: self._load(results, file, digest), report)
            return results.outcome(inputs, failed)

    def _load(self, results: ResultFolder, file: Path, digest: str) -> RestorePixels:
        import torch

        from hbr.restoration import Restorer

        config = self.config
        try:
            restorer = Restorer.from_file(
                file, config.device, config.dtype, name=config.model, sha256=digest
            )
        except ValueError as error:
            raise MethodError(str(error)) from error
        device = str(restorer.device)
        results.note({"torch": torch.__version__, "device": device, "dtype": restorer.dtype})

        def restore(pixels: Pixels) -> Pixels:
            height, width = wanted_size((pixels.shape[0], pixels.shape[1]), config.scale)
            made = restorer(pixels, config.settings).pixels
            assert made.shape[:2] == (height, width)
            return made  # type: ignore[return-value]  # 8 bits in, 8 bits out

        return restore
