"""One module per command line mode: each has `run(config, workdir, input) -> dict` and holds glue only."""

BUILT = {
    "demo": "predict on the embedded clip with the embedded weights",
    "predict": "a video, folder or image to robot commands, overlay, replay and report",
    "train": "train a model",
    "evaluate": "score a checkpoint on held-out data",
    "generate": "write a synthetic data set in the DexYCB layout",
    "validate": "look for what is wrong in a data set",
    "convert": "a Hugging Face DINOv2 to our weights, or a data set to ArrayRecord shards",
    "describe": "parameters, activations, FLOPs and shapes of the model's components",
    "benchmark": "frames per second of each link",
    "profile": "where the time of the train step goes",
}

LATER = {
    "serve": "streaming and serving",
    "view": "interactive viewing",
}
