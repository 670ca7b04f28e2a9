"""How far off hands and grasped objects are seen in videos, in space and where lines of sight meet the table.

python experiments/robot/localise.py --root=TEST [--weights=FILE] [--videos=60]
"""

import argparse

import jax
import numpy as np

import amt
from amt.data.demonstrations import demonstration, recording
from amt.data.dexycb import find_root
from amt.data.images import decode
from amt.data.packed import open_source
from amt.data.ycb import primitive_table
from amt.inference.grounding import scales
from amt.inference.observing import crop_frames
from amt.models.perception import Amt
from amt.models.policy import observe
from amt.models.temporal import GRIP, Observation, on_table
from amt.structs import Camera


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="a data set with calibrated tables, held out as a whole")
    parser.add_argument("--split", default="s0")
    parser.add_argument("--part", default="all")
    parser.add_argument("--weights", help="a folder of --mode=train or a file; the embedded ones without")
    parser.add_argument("--videos", type=int, default=60, help="so many, evenly spaced; those without an object count")
    args = parser.parse_args()
    source, predictor = open_source(find_root(args.root), args.split, args.part), amt.load_predictor(args.weights)
    half = np.asarray(primitive_table()[0], np.float32)

    @jax.jit
    def look(params, image, K, T, valid):
        out = predictor.model.apply({"params": params}, image, K, predictor.hand, method=Amt.perceive)
        still, one = np.zeros((1, len(image), 22), np.float32), np.ones((1, len(image)), np.float32)
        return observe(out, T[None], half, still, valid[None], one)

    clips = source.clips()
    rows, frames, missed = [], 0, 0
    for number in np.unique(np.linspace(0, len(clips) - 1, min(args.videos, len(clips))).astype(int)):
        recorded = recording(source, clips[number])
        shown = demonstration(recorded)
        if not shown.ycb_id:
            continue
        samples, T = recorded.samples, recorded.T_table_camera
        images = np.stack([decode(s["color"]) for s in samples])
        prediction = predictor(images, Camera(samples[0]["K"], T), is_left=shown.mirrored)
        valid = np.asarray(prediction.hand.valid)
        frames, missed = frames + len(valid), missed + int((~valid).sum())
        K = np.tile(np.asarray(samples[0]["K"], np.float64), (len(images), 1, 1))[valid]
        boxes = predictor.boxes(prediction.hand.joints[valid], K)
        crops = predictor.crops(images[valid], K, boxes, np.full(len(K), shown.mirrored))
        T = crop_frames(np.eye(4), T[valid], crops.R_crop_camera, shown.mirrored)
        every = np.arange(len(images)).clip(max=len(K) - 1)  # one shape, one compilation
        seen = look(predictor.params, crops.image[every], crops.K[every], T[every], np.ones(len(images), bool))
        grounded = seen.rescaled(scales(seen)[None])
        true, of = (shown.joints[valid], shown.object_pos[valid]), {"": seen, ", grounded": grounded}
        rows.append({f"{name}{how}": x for how, what in of.items() for name, x in errors(what, *true).items()})
    print(f"{len(rows)} videos, {frames} frames, no hand seen in {missed / frames:.1%}")
    for name in rows[0]:
        mm = 1e3 * np.concatenate([row[name] for row in rows])
        within = " ".join(f"{(mm < limit).mean():4.0%} < {limit} mm" for limit in (10, 20, 40))
        print(f"{name:>38}  median {np.median(mm):6.1f} mm  mean {mm.mean():6.1f} mm  {within}")


def errors(seen: Observation, joints: np.ndarray, object_pos: np.ndarray) -> dict[str, np.ndarray]:
    """Metres, of every frame; all in the table's frame. Of `seen` [1,t] the first frames count."""
    seen = jax.tree.map(lambda x: np.asarray(x)[0, : len(joints)], seen)
    camera = seen.camera_position

    def off(a, b):
        return np.linalg.norm(a - b, axis=-1)

    def on_plane(a, b):
        return off(*(np.asarray(on_table(x, camera)) for x in (a, b)))

    from_wrist = (seen.object_position - seen.joints[:, 0], object_pos - joints[:, 0])
    return {
        "wrist": off(seen.joints[:, 0], joints[:, 0]),
        "joints": off(seen.joints, joints).mean(-1),
        "object": off(seen.object_position, object_pos),
        "object from the wrist": off(*from_wrist),
        "grip's line on the table": on_plane(seen.joints[:, GRIP].mean(1), joints[:, GRIP].mean(1)),
        "object's line on the table": on_plane(seen.object_position, object_pos),
    }


if __name__ == "__main__":
    main()
