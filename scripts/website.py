"""Build the documentation as a site into `.build/site`, strictly: a link that leads nowhere fails.

The pages are README, CHANGELOG, SECURITY and all of `docs/`. A link to another file of the
repository leads to a copy of it, so that nothing on the site points to a place that may not exist.
"""

import argparse
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from settlement.errors import RaphaError

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / ".build" / "site"
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "SECURITY.md": "SECURITY.md"}
# the diagrams' renderer, one file of an npm package whose others are not needed
MERMAID = "mermaid@11.12.0"
MERMAID_SHA256 = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```|~~~)")


class DeadLink(RaphaError, ValueError):
    """A page links to a file that is not in the repository."""

    def __init__(self, page: str, link: str) -> None:
        self.page, self.link = page, link
        super().__init__(f"{page} links to {link}, which is not there")


def staged(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


class Stage:
    """The folder that the site is built from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: set[str] = set()

    def add(self, path: str) -> None:
        """Put a file there, and whatever it links to; paths are the repository's.

        Raises:
            DeadLink: when something that a page links to is not there.
        """
        if path in self._done:
            return
        self._done.add(path)
        target = self._folder / staged(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".md"):
            target.write_text(self._rewritten(path))
        else:
            shutil.copyfile(ROOT / path, target)

    def _rewritten(self, page: str) -> str:
        lines, fenced = [], False
        for line in (ROOT / page).read_text().splitlines():
            fenced ^= bool(_FENCE.match(line))
            if not fenced:
                line = _LINK.sub(lambda m: m[1] + self._link(page, m[2]) + m[3], line)
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _link(self, page: str, link: str) -> str:
        if link.startswith(("#", "http://", "https://", "mailto:")):
            return link
        place, hash_, anchor = link.partition("#")
        path = normpath(PurePosixPath(page).parent / unquote(place))
        if path.startswith("..") or not (ROOT / path).is_file():
            raise DeadLink(page, link)
        self.add(path)
        return relpath(staged(path), PurePosixPath(staged(page)).parent) + hash_ + anchor


def mermaid() -> Path:
    """The bundled renderer of the diagrams, fetched by npm once and kept in `.cache`.

    Raises:
        SystemExit: when npm does not bring it, or brings another file.
    """
    kept = ROOT / ".cache" / f"{MERMAID}.min.js"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", MERMAID, "--silent", "--cache", str(ROOT / ".cache/npm")]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
            with tarfile.open(Path(folder) / done.stdout.split()[-1]) as package:
                script = package.extractfile("package/dist/mermaid.min.js")
                assert script is not None
                data = script.read()
        if hashlib.sha256(data).hexdigest() != MERMAID_SHA256:
            raise SystemExit(f"{MERMAID} is not the file that is pinned")
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(data)
    return kept


def build_site(target: Path, renderer: Path | None, *, reference: bool = True) -> None:
    """Stage and build. `renderer` is Mermaid's script; without it diagrams stay text.

    Without `reference` the docstrings are left out, which take most of the time.

    Raises:
        DeadLink: see `Stage.add`.
        mkdocs.exceptions.Abort: when anything is wrong with the pages, an anchor too.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for page in PAGES:
            stage.add(page)
        for path in sorted((ROOT / "docs").rglob("*")):
            if path.is_file() and path.suffix != ".yml":
                stage.add(path.relative_to(ROOT).as_posix())
        assets = Path(folder) / "assets"
        assets.mkdir()
        if renderer is None:
            (assets / "mermaid.min.js").write_text("var mermaid = {initialize() {}};\n")
        else:
            shutil.copyfile(renderer, assets / "mermaid.min.js")
        without: dict[str, Any] = {} if reference else {"plugins": ["search"]}
        config = load_config(
            str(ROOT / "docs" / "mkdocs.yml"),
            docs_dir=folder,
            site_dir=str(target),
            strict=True,
            **without,
        )
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        finally:
            config.plugins.on_shutdown()


def main() -> int:
    """Build the site; returns 1 when something is wrong, each told on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SITE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        build_site(given.output, mermaid())
    except (Abort, RaphaError) as error:
        print(error, file=sys.stderr)
        return 1
    print(given.output / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
