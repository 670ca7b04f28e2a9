import mujoco
import numpy as np
import pytest

from amt.errors import UserError
from amt.robot import RenderUnavailable, SceneObject, build_scene, load_robot, render, replay
from amt.robot.render import find_backend
from amt.structs import Trajectory
from tests.robot.hands import smooth_motion


def _trajectory(qpos, fps=30.0):
    T = len(qpos)
    return Trajectory(
        time=np.arange(T, dtype=np.float32) / np.float32(fps),
        qpos=np.asarray(qpos, np.float32),
        valid=np.ones(T, bool),
        T_base_world=np.eye(4),
        names=load_robot().joint_names,
    )


def test_the_robot_follows_a_slow_motion():
    commands = smooth_motion(90)
    result = replay(_trajectory(commands), build_scene(self_collision=False))
    assert result.qpos.shape == (90, 22)
    # Feedforward of the velocity takes the lag away; what is left comes from accelerations.
    assert np.abs(result.tracking_error[:, :6]).max() < 0.02
    assert np.abs(result.tracking_error[:, 6:]).max() < 0.06
    lagging = replay(_trajectory(commands), build_scene(self_collision=False), feedforward=False)
    assert np.abs(lagging.tracking_error).mean() > 3 * np.abs(result.tracking_error).mean()


def test_contacts_are_counted():
    fist = smooth_motion(1)[0]
    fist[6:18] = [-0.3, 1.2, 0.6, 0.3, 0.4, 1.2, 0.6, 0.3, 0.45, 1.2, 0.6, 0.3]  # index and middle cross
    assert replay(_trajectory([fist] * 3)).self_contacts[-1] > 0
    assert replay(_trajectory(smooth_motion(3))).self_contacts.sum() == 0
    assert replay(_trajectory(smooth_motion(3))).other_contacts.sum() == 0


def test_objects_in_the_scene():
    objects = [
        SceneObject("can", "cylinder", (0.034, 0.05), pos=(0.5, 0.4, 0.05), mass=0.3),
        SceneObject("wanted", "box", (0.03, 0.03, 0.05), ghost=True),
    ]
    model = build_scene(objects).compile()
    assert model.nq == 22 + 7 and model.nmocap == 1
    assert model.body("can").mass[0] == pytest.approx(0.3)
    assert model.geom("wanted").contype[0] == model.geom("wanted").conaffinity[0] == 0
    result = replay(_trajectory(smooth_motion(15)), build_scene(objects))
    np.testing.assert_allclose(result.state[-1, 22:25], [0.5, 0.4, 0.05], atol=2e-3)  # it rests on the table


@pytest.mark.parametrize(
    "item",
    [
        SceneObject("a", "cone", (0.1,)),
        SceneObject("a", "box", (0.1, 0.1)),
        SceneObject("a", "sphere", (-0.1,)),
        SceneObject("palm", "sphere", (0.1,)),
    ],
)
def test_bad_objects_are_user_errors(item):
    with pytest.raises(UserError):
        build_scene([item])


def test_frames_show_ghosts_and_points():
    try:
        find_backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    scene = build_scene([SceneObject("ghost", "box", (0.05, 0.05, 0.05), ghost=True)])
    result = replay(_trajectory(smooth_motion(4)), scene)
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, 3] = [[0.5, -0.3, 0.1], [0.5, 0.3, 0.1], [0.5, 0.3, 0.1], [0.5, 0.3, 0.1]]
    points = np.tile([0.3, 0.3, 0.5], (4, 1, 1))
    plain = list(render(result, scene, 160, 120, ghosts={"ghost": T}))
    dotted = list(render(result, scene, 160, 120, ghosts={"ghost": T}, points=points))
    assert len(plain) == 4 and plain[0].shape == (120, 160, 3) and plain[0].dtype == np.uint8
    assert plain[0].std() > 10, "not one colour"
    assert (plain[0] != plain[1]).any(-1).mean() > 0.005, "the ghost moved"
    assert (plain[0] != dotted[0]).any(), "the points are drawn"
    assert len(list(render(result, scene, 160, 120, fps=15.0))) == 2


def test_no_renderer_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(RenderUnavailable, match="apt-get install") as caught:
        find_backend.__wrapped__()
    assert issubclass(RenderUnavailable, UserError) and "\n" not in str(caught.value)


def test_gravity_does_not_pull_the_robot_down():
    model = build_scene().compile()
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = smooth_motion(1)[0]
    for _ in range(500):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos, smooth_motion(1)[0], atol=1e-3)
