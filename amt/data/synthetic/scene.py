"""The MuJoCo scene that renders a generated sequence: table, walls, objects, a skinned hand and forearm."""

import importlib
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from scipy.spatial.transform import Rotation

from amt.data.synthetic import appearance, models
from amt.data.ycb import OBJECTS
from amt.geometry.primitives import BOX
from amt.hand import HandModel
from amt.robot.render import BACKENDS

HAND, BACKGROUND = 255, 0  # values of the segmentation; an object has its YCB id
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0])


class Look(NamedTuple):
    """What a scene of a simulated grasp shows: the objects' models, the subject's skin and sleeve, and which hand."""

    person: np.random.Generator  # the same for all of a subject's sequences
    side: str


def numbers(values) -> str:
    """Numbers as MJCF writes them."""
    return " ".join(f"{v:.6g}" for v in np.asarray(values).ravel())


class Scene:
    """One sequence's scene; `render` poses it and draws one camera.

    Cameras are exact pinholes: MuJoCo's principal point counts from the image centre, to the left and up.
    `backend` is what `amt.robot.render.find_backend` found. Without a `look` objects are boxes and cylinders, and
    every scene's hand is another right one.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        hand: HandModel,
        ycb_ids: list[int],
        K: Float[np.ndarray, "c 3 3"],
        size: tuple[int, int],
        photographs: list,
        backend: str,
        look: Look | None = None,
    ):
        import mujoco

        self.mujoco, self.hand = mujoco, hand
        self.width, self.height = size
        self.look = look
        self.skin_vertex, uv, faces = appearance.skin_charts(hand)
        if look and look.side == "left":
            faces = faces[:, ::-1]
        self.assets = {}
        self.ycb_ids = ycb_ids
        xml = self._xml(rng, np.asarray(hand.v_template), uv, faces, K, photographs)
        self.model = mujoco.MjModel.from_xml_string(xml, self.assets)
        self.data = mujoco.MjData(self.model)
        # MuJoCo itself would take the backend that $MUJOCO_GL named when it was first imported.
        gl = importlib.import_module(f"mujoco.{backend}") if backend in BACKENDS else mujoco
        self.context = gl.GLContext(self.width, self.height)
        self.context.make_current()
        self.renderer = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.renderer)
        self.renderer.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self.buffer = np.zeros((self.height, self.width), np.float32) if look else None
        self.scene = mujoco.MjvScene(self.model, 200)
        self.viewport = mujoco.MjrRect(0, 0, self.width, self.height)
        self.option = mujoco.MjvOption()
        self.shadows = bool(rng.random() < 0.15)

    def close(self):
        """Give the GL context back."""
        self.renderer.free()
        self.context.free()

    def _material(self, rng, name, photographs, size=128):
        self.assets[f"{name}.png"] = png(appearance.texture(rng, size, photographs))
        shine = f'specular="{rng.uniform(0, 0.6):.2f}" shininess="{rng.uniform(0.1, 0.9):.2f}"'
        repeat = numbers(rng.uniform(0.7, 2.5, 2))
        return (
            f'<texture name="{name}" type="2d" file="{name}.png"/>'
            f'<material name="{name}" texture="{name}" texrepeat="{repeat}" {shine}/>'
        )

    def _model(self, rng, ycb_id):
        """Mesh and material of an object's model; what light and print make of its colours differs by scene."""
        name = f"o{ycb_id}"
        shape, texture = models.model(ycb_id)
        self.assets[f"{name}.obj"], self.assets[f"{name}.png"] = models.obj_text(shape).encode(), png(texture)
        tint = np.clip(rng.uniform(0.75, 1.0) * (1 + rng.normal(0, 0.04, 3)), 0, 1)
        shine = f'specular="{rng.uniform(0, 0.6):.2f}" shininess="{rng.uniform(0.1, 0.9):.2f}"'
        return (
            f'<mesh name="{name}" file="{name}.obj" inertia="shell"/><texture name="{name}" type="2d" '
            f'file="{name}.png"/><material name="{name}" texture="{name}" rgba="{numbers(tint)} 1" {shine}/>'
        )

    def _xml(self, rng, template, uv, faces, K, photographs):
        person = self.look.person if self.look else rng
        self.assets["skin.png"] = png(appearance.skin_texture(person, self.hand))
        names = ["table", "floor", "sleeve", *(f"wall{k}" for k in range(4))]
        names += [f"o{i}" for i in self.ycb_ids if not self.look]
        materials = ""
        for name in names:
            size = 256 if name == "table" else 128
            materials += self._material(person if name == "sleeve" else rng, name, photographs, size)
        materials += "".join(self._model(rng, i) for i in self.ycb_ids if self.look)
        bodies = ""
        for i in self.ycb_ids:
            if self.look:
                bodies += f'<body name="o{i}" mocap="true"><geom name="o{i}" type="mesh" mesh="o{i}" material="o{i}"/>'
                bodies += "</body>"
                continue
            bodies += primitive_body(i)
        distance = rng.uniform(0.9, 2.0)
        walls = "".join(
            f'<geom name="wall{k}" type="box" size=".02 {distance + 0.3:.3f} 1.6" pos="{numbers(p)}" '
            f'euler="0 0 {a}" material="wall{k}"/>'
            for k, (p, a) in enumerate(
                (
                    ([distance, 0, 0.4], 0),
                    ([-distance, 0, 0.4], 0),
                    ([0, distance, 0.4], 1.5708),
                    ([0, -distance, 0.4], 1.5708),
                )
            )
        )
        radius = person.uniform(0.024, 0.034)
        sleeve_start = person.uniform(0.0, 0.4)
        lights = ""
        for k, strength in enumerate((1.0, 0.5)):
            direction = rng.normal(size=3)
            direction[2] = -abs(direction[2]) - 0.2
            color = np.clip(rng.uniform(0.2, 0.9) * strength * (1 + rng.normal(0, 0.08, 3)), 0, 1)
            lights += (
                f'<light type="directional" pos="0 0 1.5" dir="{numbers(direction)}" '
                f'diffuse="{numbers(color)}" '
                f'specular="{numbers(color / 2)}" castshadow="{"true" if k == 0 else "false"}"/>'
            )
        cameras = cameras_xml(K, self.width, self.height)
        ambient, head = rng.uniform(0.15, 0.5), rng.uniform(0, 0.5)
        return f"""<mujoco><compiler angle="radian"/>
<visual><global offwidth="{self.width}" offheight="{self.height}"/><quality shadowsize="1024" offsamples="0"/>
<headlight ambient="{numbers([ambient] * 3)}" diffuse="{numbers([head] * 3)}" specular=".1 .1 .1"/>
<map znear="0.02" zfar="10"/></visual>
<asset><texture name="skin" type="2d" file="skin.png"/>
<material name="skin" texture="skin" specular="{rng.uniform(0, 0.35):.2f}" shininess=".3"/>{materials}</asset>
<worldbody>{lights}{walls}
<geom name="table" type="box" size="{numbers(rng.uniform(0.5, 0.85, 2))} .02" pos="0 0 -.02"
 material="table"/>
<geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.7" material="floor"/>{bodies}
<body name="forearm" mocap="true"><geom name="forearm" type="capsule" size="{radius:.4f}" material="skin"
 fromto=".03 0 0 .45 0 0"/><geom name="sleeve" type="capsule" size="{radius + person.uniform(0.004, 0.015):.4f}"
 fromto="{0.05 + sleeve_start:.3f} 0 0 .5 0 0" material="sleeve"/></body>
<body name="hand"/>{cameras}</worldbody>
{skin_xml(template[self.skin_vertex], uv, faces, "skin")}</mujoco>"""

    def pose(self, vertices, R_world_hand, wrist, object_R, object_t, R_hand_forearm):
        """Move hand, forearm and objects; world frame, metres."""
        self.model.skin_vert[:] = vertices[self.skin_vertex]
        self._mocap("forearm", R_world_hand @ R_hand_forearm, wrist)
        for i, R, t in zip(self.ycb_ids, object_R, object_t, strict=True):
            self._mocap(f"o{i}", R, t)

    def _mocap(self, body, R, t):
        index = self.model.body(body).mocapid[0]
        self.data.mocap_pos[index] = t
        self.data.mocap_quat[index] = Rotation.from_matrix(R).as_quat(scalar_first=True)

    def render(
        self, camera: int, T_world_camera: Float[np.ndarray, "4 4"]
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """RGB and segmentation of one camera."""
        mj = self.mujoco
        self.model.cam_pos[camera] = T_world_camera[:3, 3]
        R = T_world_camera[:3, :3] @ OPENCV_TO_OPENGL
        self.model.cam_quat[camera] = Rotation.from_matrix(R).as_quat(scalar_first=True)
        mj.mj_kinematics(self.model, self.data)
        mj.mj_camlight(self.model, self.data)
        view = mj.MjvCamera()
        view.type, view.fixedcamid = mj.mjtCamera.mjCAMERA_FIXED, camera
        mj.mjv_updateScene(self.model, self.data, self.option, None, view, mj.mjtCatBit.mjCAT_ALL, self.scene)
        self.scene.flags[mj.mjtRndFlag.mjRND_SHADOW] = self.shadows
        rgb, colors = self._draw(segment=False), self._draw(segment=True).astype(np.int32)
        codes = colors[..., 0] + colors[..., 1] * 256
        return self._before(codes > 0, rgb), self._labels()[codes]

    def _before(self, drawn: Bool[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture, with whatever lies behind all that is drawn."""
        return rgb

    def depth(self) -> UInt16[np.ndarray, "h w"]:
        """Millimetres along the axis of the camera that was drawn last; 0 beyond what 16 bits hold."""
        near, far = (z * self.model.stat.extent for z in (self.model.vis.map.znear, self.model.vis.map.zfar))
        buffer = self.buffer[::-1].astype(np.float64)  # 1 is near, 0 is far
        metres = near * far / (near + buffer * (far - near))
        millimetres = np.rint(metres * 1000)
        return np.where(millimetres < 2**16, millimetres, 0).astype(np.uint16)

    def _draw(self, segment):
        mj = self.mujoco
        self.scene.flags[mj.mjtRndFlag.mjRND_SEGMENT] = segment
        self.scene.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = segment
        mj.mjr_render(self.viewport, self.scene, self.renderer)
        image = np.empty((self.height, self.width, 3), np.uint8)
        mj.mjr_readPixels(image, self.buffer if segment else None, self.viewport, self.renderer)
        return image[::-1]

    def _labels(self):
        """Label of every segment code: MuJoCo draws geom k of the visual scene in colour segid + 1."""
        mj = self.mujoco
        table = np.full(1 << 16, BACKGROUND, np.uint8)
        for geom in self.scene.geoms[: self.scene.ngeom]:
            if geom.objtype == mj.mjtObj.mjOBJ_SKIN:
                table[geom.segid + 1] = HAND
            elif geom.objtype == mj.mjtObj.mjOBJ_GEOM:
                name = self.model.geom(geom.objid).name
                if name.startswith("o"):
                    table[geom.segid + 1] = int(name[1:])
        return table


def primitive_body(ycb_id: int) -> str:
    """A body of its own with the box or cylinder that stands for an object; both are named `o` and the id."""
    primitive, name = OBJECTS[ycb_id].primitive, f"o{ycb_id}"
    if primitive.axis == BOX:
        geom = f'type="box" size="{numbers(primitive.half)}"'
    else:
        radius = primitive.half[primitive.axis - 1]
        turn = ("0 1.5708 0", "1.5708 0 0", "0 0 0")[primitive.axis]
        geom = f'type="cylinder" size="{radius:.5f} {primitive.half[primitive.axis]:.5f}" euler="{turn}"'
    return f'<body name="{name}" mocap="true"><geom name="{name}" {geom} material="{name}"/></body>'


def cameras_xml(K: Float[np.ndarray, "c 3 3"], width: int, height: int) -> str:
    """Cameras `c0`, `c1`, ... with exactly these intrinsics."""
    text = ""
    for k, matrix in enumerate(K):
        offset = (width - 1) / 2 - matrix[0, 2], (height - 1) / 2 - matrix[1, 2]
        text += (
            f'<camera name="c{k}" resolution="{width} {height}" sensorsize="6.4 4.8" '
            f'focalpixel="{matrix[0, 0]} {matrix[1, 1]}" principalpixel="{offset[0]} {offset[1]}"/>'
        )
    return text


def skin_xml(
    vertices: Float[np.ndarray, "s 3"], uv: Float[np.ndarray, "s 2"], faces: Int[np.ndarray, "f 3"], material: str
) -> str:
    """A skin on one bone, the body `hand`: its vertices are overwritten in every frame."""
    ids = " ".join(str(i) for i in range(len(uv)))
    return f"""<deformable><skin name="hand" material="{material}" vertex="{numbers(vertices)}"
 texcoord="{numbers(uv)}" face="{" ".join(str(i) for i in faces.ravel())}"><bone body="hand" bindpos="0 0 0"
 bindquat="1 0 0 0" vertid="{ids}" vertweight="{" ".join(["1"] * len(uv))}"/></skin></deformable>"""


def png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An RGB image as a file."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
