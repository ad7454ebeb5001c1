"""Which orders of frames make a rejected clip of a scene, given what its caption states.

| motion  | reverse | shuffle | freeze |
|---------|---------|---------|--------|
| still   | no      | no      | no     |
| move    | yes, where the direction is stated | yes | yes, where the motion is stated |
| bounce  | no: it is another bounce           | yes | yes, where the motion is stated |

A camera that pans is a motion with a stated direction.
"""

from __future__ import annotations

from astro_cli.shapes.grammar import Scene


def is_negative(perturbation: str, scene: Scene, stated: Scene) -> bool:
    """Whether a clip of a complete scene in another order of frames is a worse answer to the caption.

    Args:
        perturbation: "reverse", "shuffle" or "freeze".
        scene: as it was rendered.
        stated: what its caption says of it.
    """
    if scene.pan:
        return True
    shown = [spec.motion for spec in scene.objects]
    if all(motion is None or motion.kind == "still" for motion in shown):
        return False
    if perturbation == "shuffle":
        return True
    stated_motions = [spec.motion for spec in stated.objects if spec.motion is not None]
    if perturbation == "freeze":
        return any(motion.kind != "still" for motion in stated_motions)
    assert perturbation == "reverse", perturbation
    return any(motion.kind == "move" and motion.way is not None for motion in stated_motions)
