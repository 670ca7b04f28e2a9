"""Images to predictions: find the hand, crop it, perceive it, follow it."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float, UInt8

from amt import hand as hand_model
from amt.data.images import fit_frame, shrink_frame, warp
from amt.errors import UserError
from amt.geometry import cameras, mirror
from amt.hand import HandModel
from amt.inference.batching import Rows
from amt.inference.places import guess_places
from amt.models import weights
from amt.models.factory import build
from amt.models.perception import Amt
from amt.structs import Camera, Contacts, HandPose, ObjectPoses, Prediction

BATCH = 16  # frames that the finder and `stills` take at a time, on each device
PRESENCE = 0.5  # probability above which a frame has a hand
SURE = 0.3  # mean joint confidence below which the finder is asked again about a hand that is followed
NEW = 0.2  # from which what the finder found is a hand
LOST = 0.2  # below which a hand that was followed is lost
OBJECT_CONFIDENCE = 0.4
EXTENT_IN_SPREADS = 3.4  # of the joints of an open hand along the hand
# Ways to turn and scale a found box: the finder is rough, the perception model knows which crop it understands.
TURNS = tuple(np.pi / 4 * np.arange(8))
FINALISTS = 8  # of the ways, which get further looks before the surest one is chosen
FINDER_ANGLE = 0.3  # log odds that the finder's angle adds to a look of the same angle, and takes from its opposite
SIDE_FRAMES = 8  # of a clip, on which both sides are tried
LOOKS = 2  # further crops of the finalists, and then of the one chosen, each from the joints seen in the one before
UNKNOWN_KIND = -1  # of a contact


class FoundHands(NamedTuple):
    """What the finder says of N frames; boxes in image pixels, `left` and `presence` probabilities.

    `guesses` are boxes, the best one first.
    """

    guesses: tuple[cameras.Box, ...]
    left: Float[np.ndarray, " n"]
    presence: Float[np.ndarray, " n"]

    def at(self, index) -> "FoundHands":
        """Some of the frames."""
        guesses = tuple(cameras.Box(*(x[index] for x in box)) for box in self.guesses)
        return FoundHands(guesses, self.left[index], self.presence[index])

    @property
    def box(self) -> cameras.Box:
        """The best guess."""
        return self.guesses[0]


class Crops(NamedTuple):
    """Crops of N frames, their intrinsics, and the rotations into their cameras (left hands: out of the mirrored)."""

    image: UInt8[np.ndarray, "n size size 3"]
    K: Float[np.ndarray, "n 3 3"]
    R_crop_camera: Float[np.ndarray, "n 3 3"]


def load_predictor(folder: str | Path | None = None, hand: HandModel | None = None) -> "Predictor":
    """Predictor of the embedded weights, those of a --mode=train work directory, or a .safetensors file.

    `hand` is the model that they were trained with; None: the embedded one. Raises `UserError` where weights are
    missing, damaged or of another hand.
    """
    path, hand = weights.resolve(folder), hand or hand_model.load()
    params, settings, _ = weights.load(path)
    weights.check_hand(path, hand)
    return Predictor(params, settings, hand, weights.contacts_taught(path))


class Predictor:
    """`predictor(images, camera)`: uint8 [T,H,W,3] of one hand over time -> `Prediction` in the camera's frame.

    Frames in which no hand is found have `hand.valid` False and zeros. Without `contacts_taught`, which a weights file
    says, contacts have no kind (-1) and no force (NaN). On a `mesh` every device sees its part of the frames.
    """

    def __init__(
        self,
        params: dict[str, Any],
        settings: dict[str, Any],
        hand: HandModel,
        contacts_taught: bool = False,
        mesh: Mesh | None = None,
    ):
        if settings.get("family") == "vmt":
            raise UserError(
                "weights of VMT: it has no finder, and predict and evaluate are not built for it; "
                "--mode=train scores it on held-out crops from labels"
            )
        self.settings, self.mesh = settings, mesh
        self.contacts_taught = contacts_taught
        self.image_size = settings["image_size"]
        self.frame_size = settings["finder"]["frame_size"]
        self.margin = settings["crop_margin"]
        self.crop = settings["crop"]
        self.model = build(settings["model"], settings["finder"], self.image_size)
        self.params = jax.device_put(params, None if mesh is None else NamedSharding(mesh, P()))
        self.hand = jax.tree.map(jnp.asarray, hand)
        self._find = Rows(functools.partial(guess_places, self.model), BATCH, mesh)
        self._perceive, self._perceive_one = (Rows(self._perceive_crops, size, mesh) for size in (BATCH, 1))

    def __call__(
        self,
        images: UInt8[np.ndarray, "t h w 3"],
        camera: Camera,
        progress: Any = None,
        is_left: bool | None = None,
    ) -> Prediction:
        """Follow one hand through the frames; `progress.update(n)` is told of every frame.

        The side is found on a few frames unless `is_left` says it; it is the same in all of them.
        """
        found = self.find(images)
        seen = found.presence >= PRESENCE
        K = np.asarray(camera.K, np.float64)
        side = self._side(images, K, found, seen) if is_left is None else is_left
        frames, box = [], None
        for t, image in enumerate(images):
            one, box = self.track(image, K, side, box, lambda t=t: found.at([t]))
            frames.append(one)
            if progress is not None:
                progress.update(1)
        prediction = jax.tree.map(lambda *x: np.concatenate(x), *frames)
        return prediction.replace(camera=camera)

    def track(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        K: Float[np.ndarray, "3 3"],
        is_left: bool,
        box: cameras.Box | None,
        find: Callable[[], FoundHands],
    ) -> tuple[Prediction, cameras.Box | None]:
        """The hand in one more frame, [1,...], and where to look in the next; `box` is where to look in this one.

        Where nothing is to be seen there, or box is None, `find` says what the finder sees in the frame.
        """
        one, sureness = None, 0.0
        side = np.array([is_left])
        if box is not None:
            one = self.perceive(image[None], K[None], _stack([box]), side)
            sureness = one.joint_confidence.mean()
        if sureness < SURE and (found := find()).presence[0] >= PRESENCE:  # lost, or about to be
            other = self._acquire(image[None], K[None], found, side)
            if other.joint_confidence.mean() >= max(sureness, NEW):
                one = other
        if _is_seen(one):
            return one, self._next_box(one.hand.joints[0], K, image.shape)
        return _nothing(one) if one is not None else self._empty(), None

    def stills(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        K: Float[np.ndarray, "n 3 3"],
        is_left: Bool[np.ndarray, " n"] | None = None,
    ) -> Prediction:
        """Frames that have nothing to do with each other; the side is what looks likelier, unless it is given."""
        if is_left is None:
            right, left, odds = self.both_sides(images, K)
            return choose(odds > 0, left, right)
        found = self.find(images)
        return _check(self._acquire_all(images, K, found, np.asarray(is_left)), found)

    def both_sides(
        self, images: UInt8[np.ndarray, "n h w 3"], K: Float[np.ndarray, "n 3 3"], found: FoundHands | None = None
    ) -> tuple[Prediction, Prediction, Float[np.ndarray, " n"]]:
        """Each frame seen as a right hand, as a left hand, and the log odds that it is a left one.

        `found` is what `find` says of the images, which is asked otherwise.
        """
        found = self.find(images) if found is None else found
        right, left = self._as_both(images, K, found)
        return _check(right, found), _check(left, found), self._odds(right, left, found)

    def _side(self, images, K, found, seen) -> bool:
        """Whether it is a left hand: both sides are tried on a few frames that have a hand, their odds add up."""
        frames = np.flatnonzero(seen)
        frames = frames[np.linspace(0, len(frames) - 1, min(SIDE_FRAMES, len(frames))).astype(int)]
        if not len(frames):
            return False
        some = found.at(frames)
        K = np.repeat(K[None], len(frames), axis=0)
        return bool(self._odds(*self._as_both(images[frames], K, some), some).sum() > 0)

    def _as_both(self, images, K, found):
        return (self._acquire_all(images, K, found, np.full(len(images), side)) for side in (False, True))

    def _odds(self, right, left, found):
        """What the perception model says of both crops, and the finder of the frame."""
        return _logit(left.side_confidence) - _logit(right.side_confidence) + _logit(found.left)

    def _acquire_all(self, images, K, found, is_left) -> Prediction:
        size = self._perceive.size
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        outs = [self._acquire(images[p], K[p], found.at(p), is_left[p]) for p in parts]
        return jax.tree.map(lambda *x: np.concatenate(x), *outs)

    def find(self, images: UInt8[np.ndarray, "n h w 3"]) -> FoundHands:
        """Where the finder sees a hand in each frame, on its own."""
        small = np.stack([shrink_frame(image, self.frame_size) for image in images])
        uv, left, presence, places = jax.tree.map(lambda x: x.astype(np.float64), self._find(self.params, small))
        to_frame = fit_frame(images.shape[2], images.shape[1], self.frame_size)

        def to_image(points):
            return (points * self.frame_size - 0.5 - to_frame[:2, 2]) / to_frame[0, 0]

        make = cameras.upright_box if self.crop == "box" else cameras.hand_box
        box = make(to_image(uv), self.margin)
        guesses = []
        for center, spread in places:
            extent = EXTENT_IN_SPREADS * spread * self.frame_size / to_frame[0, 0] * self.margin
            guesses.append(cameras.Box(to_image(center), extent, box.angle))
        guesses[0] = box._replace(size=np.maximum(box.size, guesses[0].size))
        return FoundHands(tuple(guesses), _sigmoid(left), _sigmoid(presence))

    def perceive(
        self,
        images: Sequence[UInt8[np.ndarray, "h w 3"]],
        K: Float[np.ndarray, "n 3 3"],
        box: cameras.Box,
        is_left: Bool[np.ndarray, " n"],
    ) -> Prediction:
        """One look at the crop of every frame; `box` in image pixels. The camera of the result is left out."""
        crops = self.crops(images, K, box, is_left)
        perceive = self._perceive_one if len(images) == 1 else self._perceive
        return _mirror_back(perceive(self.params, crops), is_left)

    def crops(
        self,
        images: Sequence[UInt8[np.ndarray, "h w 3"]],
        K: Float[np.ndarray, "n 3 3"],
        box: cameras.Box,
        is_left: Bool[np.ndarray, " n"],
    ) -> Crops:
        """What perception is given of every frame, as right hands; `box` in image pixels."""
        width = images[0].shape[1]
        right_K = np.where(is_left[:, None, None], mirror.mirror_intrinsics(K, width), K)
        center = np.where(is_left[:, None], mirror.mirror_pixels(box.center, width), box.center)
        angle = np.where(is_left, np.pi - box.angle, box.angle)
        crop = cameras.crop_camera(right_K, cameras.Box(center, box.size, angle), self.image_size)
        flip = np.where(is_left[:, None, None], mirror.flip_matrix(width), np.eye(3))
        H = crop.H_crop_image @ flip
        made = np.stack([warp(image, H[k], self.image_size) for k, image in enumerate(images)])
        return Crops(made, crop.K.astype(np.float32), crop.R_crop_camera.astype(np.float32))

    def _acquire(self, images, K, found, is_left):
        """Look at the found boxes turned in several ways, again at what the surest ones saw, choose one, look again."""
        ways = [box._replace(angle=box.angle + turn) for box in found.guesses for turn in TURNS]
        boxes = cameras.Box(*(np.stack(x, axis=1) for x in zip(*ways, strict=True)))
        rows = np.arange(len(images))[:, None]
        joints, surest = self._look(images, K, boxes, is_left, found)
        joints = joints[rows, surest[:, :FINALISTS]]
        for _ in range(LOOKS):
            joints, surest = self._look(images, K, self.boxes(joints, K[:, None]), is_left, found)
        joints = joints[rows[:, 0], surest[:, 0]]
        for _ in range(LOOKS):
            prediction = self.perceive(images, K, self.boxes(joints, K), is_left)
            joints = prediction.hand.joints
        return prediction

    def _look(self, images, K, boxes, is_left, found):
        """Joints [n,m,21,3] seen in m boxes of every image, and their order, the surest first."""
        n, m = boxes.size.shape
        flat = cameras.Box(*(x.reshape(n * m, *x.shape[2:]) for x in boxes))
        often = [image for image in images for _ in range(m)]
        seen = self.perceive(often, np.repeat(K, m, axis=0), flat, np.repeat(is_left, m))
        joints = seen.hand.joints.reshape(n, m, 21, 3)
        sureness = _logit(seen.joint_confidence).mean(-1).reshape(n, m)
        if self.crop != "box":
            turned = self.boxes(joints, K[:, None]).angle - found.box.angle[:, None]
            sureness += FINDER_ANGLE * np.cos(turned)
        return joints, np.argsort(-sureness, axis=1)

    def boxes(self, joints: Float[np.ndarray, "*n 21 3"], K: Float[np.ndarray, "*n 3 3"]) -> cameras.Box:
        """Where to look for hands with these joints (camera frame), in image pixels."""
        joints = joints.astype(np.float64)
        ahead = np.concatenate([joints[..., :2], np.maximum(joints[..., 2:], 0.05)], axis=-1)
        pixels = cameras.project(ahead, K)
        make = cameras.upright_box if self.crop == "box" else cameras.hand_box
        return make(pixels, self.margin)

    def _next_box(self, joints, K, shape):
        """Where to look next; None where the hand has left the image or its box makes no sense."""
        box = self.boxes(joints, K)
        h, w = shape[:2]
        inside = (box.center > -0.1 * w).all() and (box.center < [1.1 * w, 1.1 * h]).all()
        return box if inside and 8 < box.size < 3 * max(w, h) else None

    def _perceive_crops(self, params, crops: Crops) -> Prediction:
        out = self.model.apply({"params": params}, crops.image, crops.K, self.hand, method=Amt.perceive)

        def back(points):
            return jnp.einsum("bji,bnj->bni", crops.R_crop_camera, points)

        # The mesh of the parameters is moved to where the refined joints are.
        shift = (out.joints - out.coarse.joints).mean(1)
        root = out.coarse.T_joint[:, 0, :3, 3]
        orient = jnp.einsum("bji,bjk->bik", crops.R_crop_camera, out.coarse.rotations[:, 0])
        transl = jnp.einsum("bji,bj->bi", crops.R_crop_camera, root + shift) - (root - out.coarse.transl)
        confidence = jax.nn.sigmoid(out.hand.confidence)
        n = crops.image.shape[0]
        hand = HandPose(
            global_orient=orient,
            hand_pose=out.coarse.rotations[:, 1:],
            betas=out.coarse.betas,
            transl=transl,
            joints=back(out.joints),
            vertices=back(out.coarse.vertices + shift[:, None]),
            is_left=jnp.zeros(n, bool),
            valid=confidence.mean(-1) >= LOST,
        )
        rotation = jnp.einsum("bji,bqjk->bqik", crops.R_crop_camera, out.objects.rotation)
        position = back(out.objects.position)
        object_confidence = jax.nn.sigmoid(out.objects.confidence)
        objects = ObjectPoses(
            pose=jnp.concatenate([rotation, position[..., None]], axis=-1),
            ycb_ids=out.objects.classes[..., 1:22].argmax(-1) + 1,
            confidence=object_confidence,
            valid=object_confidence >= OBJECT_CONFIDENCE,
        )
        kind, force = out.contacts.kind.argmax(-1), back(out.contacts.force)
        contacts = Contacts(
            points=back(out.contacts.points),
            confidence=jax.nn.sigmoid(out.contacts.confidence),
            kind=kind if self.contacts_taught else jnp.full_like(kind, UNKNOWN_KIND),
            force=force if self.contacts_taught else jnp.full_like(force, jnp.nan),
        )
        return Prediction(hand, confidence, jax.nn.sigmoid(out.right), objects, contacts, None)

    def _empty(self) -> Prediction:
        image = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        eye = np.eye(3, dtype=np.float32)[None]
        shapes = jax.eval_shape(self._perceive_crops, self.params, Crops(image, eye, eye))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _is_seen(one: Prediction | None) -> bool:
    return one is not None and bool(one.hand.valid[0])


def _nothing(one: Prediction) -> Prediction:
    return jax.tree.map(np.zeros_like, one)


def choose(mask: Bool[np.ndarray, " n"], yes: Prediction, no: Prediction) -> Prediction:
    """Frame by frame one of two predictions."""
    return jax.tree.map(lambda a, b: np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


def _stack(boxes) -> cameras.Box:
    return cameras.Box(*(np.stack(x) for x in zip(*boxes, strict=True)))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _logit(p):
    p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def _check(prediction: Prediction, found: FoundHands) -> Prediction:
    sure = prediction.joint_confidence.mean(-1) >= NEW
    return prediction.replace(hand=prediction.hand.replace(valid=(found.presence >= PRESENCE) & sure))


def _mirror_back(prediction: Prediction, is_left) -> Prediction:
    """Left hands were seen mirrored: everything but the hand's own parameters returns to the real camera frame."""
    if not is_left.any():
        return prediction

    def choose(value, mirrored):
        return np.where(is_left.reshape(-1, *[1] * (value.ndim - 1)), mirrored, value)

    hand, objects, contacts = prediction.hand, prediction.objects, prediction.contacts
    return prediction.replace(
        hand=hand.replace(
            joints=choose(hand.joints, mirror.mirror_points(hand.joints)),
            vertices=choose(hand.vertices, mirror.mirror_points(hand.vertices)),
            is_left=np.asarray(is_left),
        ),
        objects=objects.replace(pose=choose(objects.pose, mirror.mirror_object_pose(objects.pose))),
        contacts=contacts.replace(
            points=choose(contacts.points, mirror.mirror_points(contacts.points)),
            force=choose(contacts.force, mirror.mirror_points(contacts.force)),
        ),
    )
