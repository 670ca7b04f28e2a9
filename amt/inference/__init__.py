"""From images or a video to a `Prediction` over time: frames in, predictor, smoothing, frames out."""
