"""The page as a Space of the Hugging Face Hub: this file is the Space's app.py. See docs/guides/demo.md."""

import os

from tabzoo.demo.page import build_page, launch

demo = build_page(os.environ.get("TABZOO_DEMO_BACKBONES", "").split())

if __name__ == "__main__":
    launch(demo)
