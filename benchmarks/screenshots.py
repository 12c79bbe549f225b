"""Pictures of a report for the README: `python benchmarks/screenshots.py runs/digits/report.html docs`.

Writes report_light.png, report_dark.png and report_phone.png; needs Chromium and `pip install playwright`.
"""

import argparse
import pathlib
import shutil
import sys

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
LOOKS = {  # width, height, colours, scale
    "light": (1240, 1500, "light", 1),
    "dark": (1240, 1500, "dark", 1),
    "phone": (360, 800, "dark", 2),
}


def main(page: pathlib.Path, folder: pathlib.Path, whole: bool) -> None:
    """Takes the pictures; of the whole page, or of its first screen."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS.split())
        for name, (width, height, scheme, scale) in LOOKS.items():
            view = {"width": width, "height": height}
            context = browser.new_context(viewport=view, color_scheme=scheme, device_scale_factor=scale)
            tab = context.new_page()
            tab.on("console", lambda message: print(f"{message.type}: {message.text}", file=sys.stderr))
            tab.on("pageerror", lambda error: print(f"error: {error}", file=sys.stderr))
            tab.goto(page.absolute().as_uri())
            file = folder / f"report_{name}.png"
            tab.screenshot(path=file, full_page=whole)
            Image.open(file).convert("RGB").quantize(160, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)
            print(f"{file}  {file.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--whole", action="store_true", help="of the whole page, not of its first screen")
    main(**vars(parser.parse_args()))
