"""The wheel holds one package: what stands beside ``albert_ablate/`` in the repository lies inside it there."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Folders that move in, and what is code or data in them.
INSIDE = ("analysis", "conf", "sweeps")
SUFFIXES = (".py", ".yaml", ".j2")


class WithFolders(build_py):
    """``build_py`` that takes them along; an editable installation reads them where they are."""

    def run(self) -> None:
        """Copy the package, then the folders."""
        super().run()
        for file in () if self.editable_mode else self._inside():
            target = Path(self.build_lib, "albert_ablate", file)
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target), preserve_mode=False)

    def _inside(self) -> list[Path]:
        files = (file for folder in INSIDE for file in Path(folder).rglob("*"))
        return sorted(file for file in files if file.suffix in SUFFIXES)


setup(cmdclass={"build_py": WithFolders})
