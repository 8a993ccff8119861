"""Make PNG pictures of pages smaller: 128 colours are more than they use. usage: smaller.py FILE…"""

from __future__ import annotations

import sys

from PIL import Image

for name in sys.argv[1:]:
    with Image.open(name) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(name, optimize=True)
