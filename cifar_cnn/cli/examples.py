"""What `--help` shows as examples of each command; they run in a folder with a run `first`."""

EXAMPLES = {
    "": (
        "cifar-cnn summary --model compact",
        "cifar-cnn train --dataset synthetic --epochs 2 --name first",
        "cifar-cnn predict photo.png --checkpoint runs/first/model.pt",
    ),
    "train": (
        "cifar-cnn train --dataset synthetic --epochs 2 --name first",
        "cifar-cnn train --model compact --recipe best --epochs 100",
        "cifar-cnn train --resume runs/first --epochs 4",
    ),
    "evaluate": (
        "cifar-cnn eval runs/first/model.pt",
        "cifar-cnn eval runs/first/model.pt --tta --predictions all.csv",
    ),
    "summarize": (
        "cifar-cnn summary compact",
        "cifar-cnn summary student.py --max-params 100000 --require gap",
        "cifar-cnn summary submissions/*.py --csv grades.csv",
    ),
    "receptive-field": (
        "cifar-cnn receptive-field --verify",
        "cifar-cnn receptive-field student.py --input-size 64x48",
        "cifar-cnn receptive-field --effective --plot field.png",
    ),
    "models": (
        "cifar-cnn models",
        "cifar-cnn models --json",
    ),
    "predict": (
        "cifar-cnn predict photo.png --checkpoint runs/first/model.pt",
        "cifar-cnn predict photos --checkpoint runs/first/model.pt --top 1",
    ),
    "export": (
        "cifar-cnn export runs/first/model.pt --format onnx",
        "cifar-cnn export runs/first/model.pt --format safetensors --exist-ok",
    ),
    "report": (
        "cifar-cnn report first",
        "cifar-cnn report first --compare second --reference",
        "cifar-cnn report first --markdown hand-in.md",
    ),
    "runs": (
        "cifar-cnn runs",
        "cifar-cnn runs --sort epochs",
    ),
    "runs show": (
        "cifar-cnn runs show first",
        "cifar-cnn runs show runs/first --json",
    ),
    "runs compare": (
        "cifar-cnn runs compare first second",
        "cifar-cnn runs compare first second --plot curves.png",
    ),
    "settings": (
        "cifar-cnn settings",
        "cifar-cnn settings --schema",
        "cifar-cnn settings --results-schema",
    ),
}
