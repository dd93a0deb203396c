"""The files of the site: README.md, docs/ and results/ at the places they have in the repository.

So a relative link leads to the same file here and on a code-hosting page. mkdocs itself would take docs/ alone.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PATTERNS = (
    "*.md",
    "LICENSE",
    "NOTICE",
    "docs/*.md",
    "docs/*.css",
    "results/*.md",
    "results/*/*.*",
    "results/*/*/*.csv",
    "results/*/*/*.md",
    "results/*/*/*.svg",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files and those of the repository that pages show or link."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        kept.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(kept)
