"""Runs official VBench dimensions in an interpreter of its own: a JSON request a line on standard input, a JSON answer
a line on standard output.

`eval.vbench.isolated` starts it as a file. It imports only what its own interpreter has installed, nothing of this
project. Request: {"dimension", "video", "prompt", "auxiliary", "weights", "device"}. Answer: {"value", "details"} or
{"error"}.
"""

import importlib
import json
import math
import os
import runpy
import sys
import traceback

COLOR = "color"  # needs dense captions, the other GRiT dimensions detections
GRIT = ("object_class", "multiple_objects", COLOR, "spatial_relationship")
NOT_DETAILS = ("video_path", "video_results")
VIDEO_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    OSError,
)
MODELS = {}


class Detector:
    """GRiT, remembering where it failed: vbench's object_class counts a frame on which it does as one without
    objects.
    """

    def __init__(self, model):
        self.model, self.failures = model, []

    def run_caption_tensor(self, frame):
        try:
            return self.model.run_caption_tensor(frame)
        except (*VIDEO_ERRORS, ImportError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            raise


def device_of(name):
    import torch

    torch.set_grad_enabled(
        False
    )  # vbench's scene keeps a graph for 16 frames of Swin-B, over 20 GB; no score depends on it
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def load(dimension, weights, device):
    """The dimension's model, once; detections of three dimensions are one model."""
    key = "detections" if dimension in GRIT and dimension != COLOR else dimension
    if key not in MODELS:
        MODELS[key] = build(dimension, weights, device)
    return MODELS[key]


def build(dimension, weights, device):
    if dimension in GRIT:
        model = importlib.import_module("vbench.third_party.grit_model").DenseCaptioning(device)
        (model.initialize_model if dimension == COLOR else model.initialize_model_det)(model_weight=weights)
        return Detector(model)
    tag2text = importlib.import_module("vbench.third_party.tag2Text.tag2text").tag2text_caption
    return tag2text(pretrained=weights, image_size=384, vit="swin_b").eval().to(device)


def score(request):
    """A dimension's own function on one video; finite, or None where vbench leaves the video out of its mean."""
    dimension, device = request["dimension"], device_of(request.get("device"))
    model = load(dimension, request["weights"], device)
    info = {"prompt": request["prompt"], "video_list": [request["video"]], "auxiliary_info": request["auxiliary"]}
    videos = run(dimension, model, info, device)
    if not videos:
        return {"value": None, "details": {"object_found": False}}
    result = videos[0]
    value = float(result["video_results"])
    if not math.isfinite(value):
        raise ValueError(f"its score is {value}, scores are finite")
    return {"value": value, "details": {key: part for key, part in result.items() if key not in NOT_DETAILS}}


def run(dimension, model, info, device):
    """vbench's results per video; none of `color` where it finds the object nowhere."""
    function = getattr(importlib.import_module("vbench." + dimension), dimension)
    if dimension not in GRIT:
        return function(model, [info], device)[1]
    model.failures.clear()
    try:
        videos = function(model, [info], device)[1]
    except ZeroDivisionError:
        if dimension != COLOR or model.failures:
            raise
        videos = []
    if model.failures:
        raise RuntimeError(f"GRiT failed on {len(model.failures)} frames, first with {model.failures[0]}")
    return videos


def main():
    sys.path[:] = [
        folder for folder in sys.path if os.path.abspath(folder) != os.path.dirname(os.path.abspath(__file__))
    ]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vbench prints goes to standard error
    if len(sys.argv) > 1:
        runpy.run_path(sys.argv[1])["install"]()  # torchvision beside a CPU build of torch
    for line in sys.stdin:
        print(answer(line), file=answers, flush=True)


def answer(line):
    """The answer's line. What is wrong with one video is an answer; what is wrong with the installation ends the
    process.
    """
    try:
        return json.dumps(score(json.loads(line)), allow_nan=False, default=float)
    except VIDEO_ERRORS as error:
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
