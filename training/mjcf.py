"""A scene as a MuJoCo model description. Knows how things are put together, not how they are rendered."""

from __future__ import annotations

from training.scenes import Item, Light, Scene, Surface, camera_axes
from training.shapes import mesh_of

WALL_DISTANCE = 1.6
PRIMITIVES = ("ball", "cube")


def scene_xml(scene: Scene, width: int, height: int) -> str:
    """The model: room, table, things (geoms `item0`...), lamps, and one camera."""
    meshes = "".join(_mesh(index, item) for index, item in enumerate(scene.items) if item.shape not in PRIMITIVES)
    things = "".join(_item(index, item) for index, item in enumerate(scene.items))
    lamps = "".join(_lamp(light) for light in scene.lights)
    right, up = camera_axes(scene.camera)
    half_x, half_y = scene.table_half
    return f"""<mujoco><visual><global offwidth="{width}" offheight="{height}"/>
<quality shadowsize="1024" offsamples="4"/><map znear="0.05" zfar="20"/>
<headlight ambient="{_row([scene.ambient] * 3)}" diffuse="0.15 0.15 0.15" specular="0 0 0"/></visual>
<statistic extent="1" center="0 0 0"/>
<asset>{_material("table", scene.table)}{_material("wall", scene.wall)}{_shine(scene)}{meshes}</asset>
<worldbody>{lamps}
<geom type="box" size="{half_x} {half_y} 0.02" pos="0 0 -0.02" material="table"/>
<geom type="plane" size="3 3 0.1" pos="0 0 -0.7" rgba="{_row(scene.floor_rgb)} 1"/>
{_walls()}{things}
<camera name="camera" pos="{_row(scene.camera.eye)}" xyaxes="{_row(right)} {_row(up)}" fovy="{scene.camera.fovy}"/>
</worldbody></mujoco>"""


def _row(values: list[float] | tuple[float, ...]) -> str:
    return " ".join(f"{value:.5g}" for value in values)


def _material(name: str, surface: Surface) -> str:
    size = 128
    return (
        f'<texture name="{name}" type="2d" builtin="{surface.pattern}" rgb1="{_row(surface.rgb)}" '
        f'rgb2="{_row(surface.rgb_other)}" width="{size}" height="{size}" mark="random" random="0.08" '
        f'markrgb="{_row(surface.rgb_other)}"/>'
        f'<material name="{name}" texture="{name}" texrepeat="{_row(surface.repeat)}" specular="0.1"/>'
    )


def _shine(scene: Scene) -> str:
    return "".join(
        f'<material name="skin{index}" specular="{item.shininess:.3f}" shininess="{item.shininess:.3f}"/>'
        for index, item in enumerate(scene.items)
    )


def _mesh(index: int, item: Item) -> str:
    mesh = mesh_of(item.shape)
    scale = _row((item.size, item.size, item.size * item.height))
    vertices = " ".join(f"{value:.4g}" for value in mesh.vertices.ravel())
    faces = " ".join(str(value) for value in mesh.faces.ravel())
    return f'<mesh name="mesh{index}" inertia="shell" scale="{scale}" vertex="{vertices}" face="{faces}"/>'


def _item(index: int, item: Item) -> str:
    look = f'name="item{index}" material="skin{index}" rgba="{_row(item.rgb)} 1" contype="0" conaffinity="0"'
    turn = f'euler="0 0 {item.yaw:.1f}"'
    if item.shape == "ball":
        return f'<geom type="sphere" size="{item.size}" pos="{_row((item.x, item.y, item.size))}" {look}/>'
    if item.shape == "cube":
        half = item.size * item.height
        pos = _row((item.x, item.y, half))
        return f'<geom type="box" size="{_row((item.size, item.size, half))}" pos="{pos}" {turn} {look}/>'
    pos = _row((item.x, item.y, 0.0))
    return f'<geom type="mesh" mesh="mesh{index}" pos="{pos}" {turn} {look}/>'


def _lamp(light: Light) -> str:
    x, y, z = light.position
    glow = _row([light.strength] * 3)
    return (
        f'<light pos="{_row(light.position)}" dir="{_row((-x, -y, -z))}" diffuse="{glow}" specular="{glow}" '
        f'castshadow="{"true" if light.shadow else "false"}" cutoff="60" exponent="1"/>'
    )


def _walls() -> str:
    far, half = WALL_DISTANCE, 2.5
    places = ((far, 0, 0.02, far), (-far, 0, 0.02, far), (0, far, far, 0.02), (0, -far, far, 0.02))
    return "".join(
        f'<geom type="box" size="{sx} {sy} {half}" pos="{x} {y} {half - 0.7}" material="wall"/>' for x, y, sx, sy in places
    )
