"""Single views of a hand: another pose, place, skin, light, object and background in every one; tens a second.

The camera stands still at the world's origin and looks along y, level; z is up. What is not in view stands behind it.
Objects are the boxes and cylinders of `amt.data.ycb`. A sequence shares its subject, its side, its lens and a stock of
textures, which is what makes it fast: its scene is built once.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.spatial.transform import Rotation

from amt.data.synthetic import appearance, grasps, motion, physical
from amt.data.synthetic.scene import Scene, cameras_xml, png, primitive_body, skin_xml
from amt.data.ycb import OBJECTS
from amt.geometry import cameras
from amt.hand import HandModel

FOCAL = (400.0, 1000.0)  # pixels of an image 640 wide
EXTENT = (0.25, 0.85)  # of the image's height that the joints cover, the longer way
FAR = 10.0  # metres: no table is near
NEAREST = 0.12  # metres from the camera
STRIDE = 3  # of the vertices that touch first
HELD, REACHED = 0.7, 0.3  # of grasps: closed on the object, or still on the way to it
MOST_OBJECTS = 4  # of a sequence
SHOWN = 0.45  # probability that an object which is not grasped is in view
IN_FRONT = 0.12  # of those, how many may hide a part of the hand
NUM_SKINS, NUM_TEXTURES, NUM_BACKGROUNDS, NUM_THINGS = 3, 6, 8, 3
RGB_ROLE = 1  # mjTEXROLE_RGB
T_WORLD_CAMERA = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
BEHIND = np.array([0.0, -5.0, 0.0])  # world


def sample(
    rng: np.random.Generator,
    shape: grasps.HandShape,
    num_views: int,
    gesture_share: float,
    objects: Sequence[int],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    left: bool,
) -> motion.Motion:
    """So many views of one subject's hand, all with an object in it or, with that probability, all without.

    `K` and `size` (width, height) say where in the image the hand may be.
    """
    ids = [int(i) for i in rng.permutation(objects)[:MOST_OBJECTS]]
    grasped = -1 if rng.random() < gesture_share else int(rng.integers(len(ids)))
    views = [_view(rng, shape, ids, grasped, K, size) for _ in range(num_views)]
    hand_pose, orient, wrist, object_R, object_t = (np.stack(x) for x in zip(*views, strict=True))
    joints, vertices = shape.pose(hand_pose)
    turn = orient.swapaxes(-1, -2)
    played = motion.Motion(
        joints=joints @ turn + wrist[:, None],
        vertices=vertices @ turn + wrist[:, None],
        global_orient=orient,
        hand_pose=hand_pose,
        wrist=wrist,
        object_R=object_R,
        object_t=object_t,
        ycb_ids=ids,
        grasped=grasped,
    )
    return physical.mirrored(played) if left else played


def _view(rng, shape, ids, grasped, K, size):
    """Hand pose [15,3]; orientation and wrist in the world; the objects' R [k,3,3] and t [k,3]."""
    R_world_camera = T_WORLD_CAMERA[:3, :3]
    while True:
        pose, R_hand_object, center = _pose(rng, shape, ids[grasped] if grasped >= 0 else None)
        R = _orientation(rng)
        joints = shape.pose(pose[None])[0][0] @ R.T
        wrist = _place(rng, joints, K, size)
        hides = grasped >= 0 and (R @ center)[2] < joints[:, 2].mean() - 0.02
        if (joints + wrist)[:, 2].min() > NEAREST and not (hides and rng.random() < 0.6):
            break
    object_R, object_t = [], []
    for k in range(len(ids)):
        if k == grasped:
            object_R.append(R @ R_hand_object)
            object_t.append(R @ center + wrist)
            continue
        object_R.append(Rotation.random(random_state=rng).as_matrix())
        if rng.random() < SHOWN:
            object_t.append(_aside(rng, joints + wrist, K, size, OBJECTS[ids[k]].primitive.diameter / 2))
        else:
            object_t.append(R_world_camera.T @ (BEHIND - [1.0 * k, 0, 0]))
    object_R = R_world_camera @ np.stack(object_R)
    return pose, R_world_camera @ R, R_world_camera @ wrist, object_R, np.stack(object_t) @ R_world_camera.T


def _pose(rng, shape, ycb_id):
    """A hand pose and the object in it: R_hand_object and its centre in the hand frame."""
    if ycb_id is None:
        return grasps.gesture(rng, shape.axes), np.eye(3), np.zeros(3)
    half, axis = OBJECTS[ycb_id].primitive
    R, center = grasps.place_in_hand(rng, half, axis)
    center = grasps.make_room(rng, shape, R, center, half, axis)
    pose = grasps.close_on(rng, shape, R, center, half, axis, np.array([0.0, 1.0, 0.0]), FAR)
    if rng.random() < REACHED:
        pose = grasps.open_hand(rng, pose, 1)[0]
        center = center + np.array([-rng.uniform(-0.03, 0.06), -rng.uniform(0, 0.06), rng.uniform(-0.03, 0.03)])
    return pose, R, center


def _orientation(rng):
    """R_camera_hand, any but those whose forearm points at the camera or, often, comes from above."""
    while True:
        R = Rotation.random(random_state=rng).as_matrix()
        forearm = R[:, 0]
        if -0.75 < forearm[2] < 0.9 and not (forearm[1] < -0.5 and rng.random() < 0.6):
            return R


def _place(rng, joints, K, size):
    """A wrist, in the camera's frame, from which the joints (relative to it) are seen in the image, most of them."""
    extent = np.ptp(joints[:, :2], axis=0).max()
    depth = K[0, 0] * extent / (rng.uniform(*EXTENT) * size[1])
    low, high = joints[:, :2].min(0) / depth * K[0, 0], joints[:, :2].max(0) / depth * K[0, 0]
    margin = 0.1 * (high - low)
    room = np.stack([-low - margin, np.array(size) - high + margin])
    pixel = rng.uniform(room.min(0), room.max(0))
    return np.array([*((pixel - K[:2, 2]) / K[[0, 1], [0, 1]]), 1.0]) * (depth + joints[:, 2].mean() * -1.0)


def _aside(rng, joints, K, size, radius):
    """A place for an object of that radius: beside or behind the hand, now and then in front of a part of it."""
    pixel = rng.uniform(-0.05, 1.05, 2) * size
    near, far = joints[:, 2].min(), joints[:, 2].max()
    depth = near - radius - rng.uniform(0.01, 0.05)
    if depth > radius + NEAREST and rng.random() < IN_FRONT:
        edge = joints[rng.integers(21)] - joints.mean(0)
        away = edge / np.linalg.norm(edge) * radius * rng.uniform(0.7, 1.3)
        pixel = cameras.project((joints.mean(0) + edge + away)[None], K)[0]
    else:
        depth = far + radius + rng.uniform(0.01, 0.5)
    return np.array([*((pixel - K[:2, 2]) / K[[0, 1], [0, 1]]), 1.0]) * depth


class CropScene(Scene):
    """A scene without room or table, redrawn for every view from its stock of textures; see `Scene`."""

    def __init__(
        self,
        rng: np.random.Generator,
        hand: HandModel,
        ycb_ids: list[int],
        K: Float[np.ndarray, "1 3 3"],
        size: tuple[int, int],
        photographs: list,
        backend: str,
        side: str,
    ):
        self.side, self.rng = side, rng
        self.backgrounds = [appearance.background(rng, 256, photographs) for _ in range(NUM_BACKGROUNDS)]
        super().__init__(rng, hand, ycb_ids, K, size, photographs, backend)
        self.first_texture = {name: self.model.texture(f"{name}0").id for name in ("skin", "texture")}
        self.model.geom_rbound[:] = 1.0  # sizes change, culling must not

    def _xml(self, rng, template, uv, faces, K, photographs):
        faces = faces[:, ::-1] if self.side == "left" else faces
        assets = ""
        for k in range(NUM_SKINS):
            self.assets[f"skin{k}.png"] = png(appearance.skin_texture(rng, self.hand))
            assets += f'<texture name="skin{k}" type="2d" file="skin{k}.png"/>'
        for k in range(NUM_TEXTURES):
            self.assets[f"texture{k}.png"] = png(appearance.texture(rng, 128, photographs))
            assets += f'<texture name="texture{k}" type="2d" file="texture{k}.png"/>'
        things = [f"thing{k}" for k in range(NUM_THINGS)]
        for name in ("skin", "sleeve", *things, *(f"o{i}" for i in self.ycb_ids)):
            assets += f'<material name="{name}" texture="{"skin0" if name == "skin" else "texture0"}"/>'
        bodies = "".join(primitive_body(i) for i in self.ycb_ids)
        for name, kind in zip(things, ("box", "cylinder", "capsule"), strict=True):
            geom = f'<geom name="{name}" type="{kind}" size=".03 .03 .03" material="{name}"/>'
            bodies += f'<body name="{name}" mocap="true">{geom}</body>'
        lights = "".join(
            f'<light name="light{k}" type="directional" pos="0 0 1.5" dir="0 0 -1" castshadow="{shadow}"/>'
            for k, shadow in enumerate(("true", "false"))
        )
        return f"""<mujoco><compiler angle="radian"/>
<visual><global offwidth="{self.width}" offheight="{self.height}"/><quality shadowsize="1024" offsamples="0"/>
<map znear="0.02" zfar="10"/></visual><asset>{assets}</asset>
<worldbody>{lights}{bodies}
<body name="forearm" mocap="true"><geom name="forearm" type="capsule" size=".03" material="skin"
 fromto=".03 0 0 .45 0 0"/><geom name="sleeve" type="capsule" size=".035" fromto=".05 0 0 .5 0 0"
 material="sleeve"/></body><body name="hand"/>{cameras_xml(K, self.width, self.height)}</worldbody>
{skin_xml(template[self.skin_vertex], uv, faces, "skin")}</mujoco>"""

    def pose(self, vertices, R_world_hand, wrist, object_R, object_t, R_hand_forearm):
        """Move everything and choose all that can be seen anew; world frame, metres. The forearm's turn is its own."""
        rng, model = self.rng, self.model
        turn = Rotation.from_rotvec([0, rng.normal(0, 0.25), rng.normal(0, 0.35)]).as_matrix()
        if self.side == "left":
            turn = np.diag([-1.0, 1.0, 1.0]) @ turn @ np.diag([1.0, 1.0, -1.0])
        super().pose(vertices, R_world_hand, wrist, object_R, object_t, turn)
        tone = rng.uniform(0.5, 1.1) * rng.uniform(0.93, 1.07, 3)
        self._paint("skin", "skin", NUM_SKINS, tone, 1.0)
        for name in ("sleeve", *(f"o{i}" for i in self.ycb_ids)):
            self._paint(name, "texture", NUM_TEXTURES, rng.uniform(0.3, 1, 3), rng.uniform(0.7, 3))
        self._dress()
        self._place_things(vertices)
        for k, strength in enumerate((1.0, 0.5)):
            direction = rng.normal(size=3)
            direction[2] = -abs(direction[2]) - 0.2 if rng.random() < 0.8 else direction[2]
            light = rng.uniform(0.1, 0.9) * strength
            model.light_dir[k] = direction / np.linalg.norm(direction)
            model.light_pos[k] = wrist - model.light_dir[k]
            model.light_diffuse[k] = np.clip(light * (1 + rng.normal(0, 0.08, 3)), 0, 1)
            model.light_specular[k] = light / 2
        model.vis.headlight.ambient[:] = rng.uniform(0.1, 0.5)
        model.vis.headlight.diffuse[:] = rng.uniform(0, 0.5)
        self.shadows = bool(rng.random() < 0.1)

    def _paint(self, material, textures, count, color, repeat):
        rng, index = self.rng, self.model.material(material).id
        self.model.mat_texid[index, RGB_ROLE] = self.first_texture[textures] + rng.integers(count)
        self.model.mat_rgba[index] = [*np.clip(color, 0, 1.2), 1]
        self.model.mat_texrepeat[index] = repeat
        self.model.mat_specular[index], self.model.mat_shininess[index] = rng.uniform(0, 0.6), rng.uniform(0.1, 0.9)

    def _dress(self):
        """A forearm of another thickness, and a sleeve that begins anywhere on it, or none."""
        rng, model = self.rng, self.model
        arm, sleeve = model.geom("forearm").id, model.geom("sleeve").id
        radius = rng.uniform(0.022, 0.036)
        model.geom_size[arm, 0], model.geom_size[sleeve, 0] = radius, radius + rng.uniform(0.003, 0.015)
        start = rng.uniform(0.03, 0.2) if rng.random() < 0.6 else 50.0
        model.geom_pos[sleeve, 0] = start + model.geom_size[sleeve, 1]

    def _place_things(self, vertices):
        """Things that no label names, behind the hand, at times in front of its edge; or out of view."""
        rng, model, camera = self.rng, self.model, T_WORLD_CAMERA[:3, :3]
        joints = vertices @ camera
        middle, depth = joints.mean(0), joints[:, 2]
        for k in range(NUM_THINGS):
            name = f"thing{k}"
            place = camera.T @ (BEHIND + [0, 0, 5.0 + k])
            if rng.random() < 0.3:
                self._paint(name, "texture", NUM_TEXTURES, rng.uniform(0.1, 1, 3), rng.uniform(0.7, 3))
                model.geom_size[model.geom(name).id] = rng.uniform(0.015, 0.08, 3)
                front = rng.random() < 0.1
                z = max(depth.min() - rng.uniform(0.1, 0.15), 0.15) if front else depth.max() + rng.uniform(0.1, 0.5)
                away = rng.normal(0, 1, 2)
                away *= (0.12 if front else rng.uniform(0, 0.2)) / max(np.linalg.norm(away), 1e-6)
                place = np.array([*((middle[:2] + away) / middle[2] * z), z])
            self._mocap(name, Rotation.random(random_state=rng).as_matrix(), camera @ place)

    def _before(self, drawn: Bool[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Over a piece of a background, at times out of focus."""
        rng = self.rng
        image = self.backgrounds[rng.integers(len(self.backgrounds))]
        side = int(rng.uniform(0.35, 1) * len(image))
        y, x = rng.integers(len(image) - side + 1, size=2)
        piece = cv2.resize(image[y : y + side, x : x + side], (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.5:
            piece = cv2.GaussianBlur(piece, (0, 0), rng.uniform(0.5, 4.0))
        piece = piece[:, ::-1] if rng.random() < 0.5 else piece
        shade = np.clip(piece * rng.uniform(0.6, 1.2), 0, 255).astype(np.uint8)
        return np.where(drawn[..., None], rgb, shade)
