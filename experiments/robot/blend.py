"""Weights between two files of one architecture: what was learned later, without forgetting all of what was before.

python experiments/robot/blend.py BEFORE.safetensors AFTER.safetensors OUT.safetensors --share=0.7

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

import argparse
from pathlib import Path

import jax

from amt.models import weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs=3, type=Path, metavar="FILE", help="before, after, out")
    parser.add_argument("--share", type=float, required=True, help="of the second file in each weight")
    args = parser.parse_args()
    before, after, out = args.files
    (old, about, _), (new, found, mean) = (weights.load(path) for path in (before, after))
    weights.check_architecture(found, about, str(after))
    blended = jax.tree.map(lambda a, b: (1 - args.share) * a + args.share * b, old, new)
    weights.save(out, blended, about, mean, weights.contacts_taught(after), hand=weights.hand_fingerprint(after))


if __name__ == "__main__":
    main()
