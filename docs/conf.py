"""The site, made by `make docs`: it loads nothing from elsewhere, and its reference is read from the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the extensions in generate/

project = "zpd-ray"
author = "the authors of zpd-ray"
extensions = ["myst_parser", "generate.mathml", "generate"]
exclude_patterns = ["generate", "style"]
nitpicky = True

# GitHub shows ```math as a formula, too.
myst_enable_extensions = ["deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

smartquotes = False  # --set would become a dash, and quotes could not be copied

html_theme = "furo"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_title = "zpd-ray"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
