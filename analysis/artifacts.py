"""Reads what runs left beside their numbers: samples and spectra, as npz without pickle."""

import io
import zipfile
from dataclasses import dataclass, field

import numpy as np

from analysis.collect import Collected


@dataclass
class Artifacts:
    """The artifacts of a study; a file that cannot be read is added to the study's problems and then absent."""

    collected: Collected
    _cache: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def arrays(self, digest: str, seed: int, name: str) -> dict[str, np.ndarray]:
        """The arrays of one file by name, none if the run left no such file."""
        filesystem, root = self.collected.storage()
        path = f"{root}/artifacts/{digest}-{seed}/{name}"
        if path not in self._cache:
            self._cache[path] = {}
            try:
                with filesystem.open_input_file(path) as source:
                    content = source.read()
                with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                    self._cache[path] = {key: archive[key] for key in archive.files}
            except FileNotFoundError:
                pass
            except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
                self.collected.problems[path] = str(error).splitlines()[0] if str(error) else type(error).__name__
        return self._cache[path]
