"""Runs official VBench dimensions in an interpreter of its own: a JSON request a line on standard input, a JSON answer a line on standard output.

Started by `eval.vbench.isolated` as a file, so it imports nothing of this project: only what the interpreter has installed. It owns no score.
Request: {"dimension", "video", "prompt", "auxiliary", "image", "weights", "device"}. Answer: {"value", "details"} or {"error"}.
"""

import importlib
import json
import os
import runpy
import sys
import traceback

COLOR = "color"  # needs dense captions, the other GRiT dimensions detections
GRIT = ("object_class", "multiple_objects", COLOR, "spatial_relationship")
NOT_DETAILS = ("video_path", "image_path", "video_results")
VIDEO_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, OSError)
MODELS = {}


def device_of(name):
    import torch

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
        return model
    if dimension == "scene":
        tag2text = importlib.import_module("vbench.third_party.tag2Text.tag2text").tag2text_caption
        return tag2text(pretrained=weights, image_size=384, vit="swin_b").eval().to(device)
    model, _ = importlib.import_module("dreamsim").dreamsim(pretrained=True, device=str(device))
    return model


def score(request):
    """A dimension's own function on one video."""
    dimension, device = request["dimension"], device_of(request.get("device"))
    model = load(dimension, request["weights"], device)
    if dimension == "i2v_background":
        function = importlib.import_module("vbench2_beta_i2v.i2v_background").i2v_background
        _, videos = function(model, [(request["image"], request["video"])], device)
    else:
        info = {"prompt": request["prompt"], "video_list": [request["video"]], "auxiliary_info": request["auxiliary"]}
        try:
            _, videos = getattr(importlib.import_module("vbench." + dimension), dimension)(model, [info], device)
        except ZeroDivisionError:
            if dimension != COLOR:
                raise
            return {"value": None, "details": {"object_found": False}}  # vbench leaves such a video out of the mean
    found = videos[0]
    return {"value": float(found["video_results"]), "details": {key: value for key, value in found.items() if key not in NOT_DETAILS}}


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vbench prints goes to standard error
    if len(sys.argv) > 1:
        runpy.run_path(sys.argv[1])["install"]()  # torchvision beside a CPU build of torch
    for line in sys.stdin:
        print(answer(line), file=answers, flush=True)


def answer(line):
    """The answer's line. What is wrong with one video is an answer; what is wrong with the installation ends the process."""
    try:
        return json.dumps(score(json.loads(line)), allow_nan=False, default=float)
    except VIDEO_ERRORS as error:
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
