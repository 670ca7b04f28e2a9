"""HTML pages without any outside reference: the template environment and pictures that are part of the page."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from jaxtyping import UInt8

from amt.storage import write_whole

THUMBNAIL_WIDTH = 480
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """One frame (RGB) with its caption."""

    image: UInt8[np.ndarray, "height width 3"]
    caption: str


def write_page(path: str | Path, template: str, **context: Any) -> None:
    """Renders one of `amt/viz/assets` into a file; text is escaped, the filter `picture` embeds an image."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amt.viz", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["picture"] = _data_uri
    write_whole(Path(path), environment.get_template(template).render(**context))


def _data_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    height, width = image.shape[:2]
    if width > THUMBNAIL_WIDTH:
        size = (THUMBNAIL_WIDTH, round(height * THUMBNAIL_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
