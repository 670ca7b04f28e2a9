"""Result files as the official tools of DexYCB read them, and our own computation of the scores that those give."""

from amt.evaluation.official.coco import require_pycocotools
from amt.evaluation.official.files import ResultFiles, file_names, score_file

__all__ = ["ResultFiles", "file_names", "require_pycocotools", "score_file"]
