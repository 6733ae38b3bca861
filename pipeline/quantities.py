"""What is counted of a data set's rows and frames, and in which bins."""

from __future__ import annotations

from syncdiff.pipeline.tally import Quantity

HEAD_POSE = ("pitch", "yaw", "roll")  # order of head_pose_deg

ROW_QUANTITIES = (
    Quantity("duration_s", "Length of the rows", "length, s", "seconds", 0, 600, 0.1, (0, 5)),
    Quantity(
        "interocular_px",
        "Size of the faces",
        "eyes apart, px",
        "source pixels between the eyes",
        0,
        1000,
        0.5,
        (0, 60),
        "A face is about two and a half times as wide as its eyes are apart.",
    ),
    Quantity(
        "sharpness",
        "Sharpness of the crops",
        "sharpness",
        "variance of the Laplacian",
        -1,
        5,
        0.02,
        (1, 2.5),
        "Grows with detail and with noise; comparable only among crops of one size.",
        log=True,
    ),
    Quantity(
        "coverage",
        "Coverage",
        "coverage, %",
        "% of a row's frames with the face detected",
        0,
        100,
        0.1,
        (80, 100),
        "In the other frames it was interpolated.",
    ),
    Quantity(
        "av_lag_frames",
        "Lag of the sound",
        "lag, frames",
        "frames of 40 ms, sound minus picture",
        -15,
        16,
        1,
        (-15, 15),
        "A data set in sync has its peak at or next to 0. Rows of low correlation scatter.",
        whole=True,
    ),
    Quantity(
        "av_correlation",
        "Mouth opening and loudness",
        "correlation",
        "correlation at the best lag",
        -1,
        1,
        0.01,
        (0, 1),
        "The higher, the surer the lag. Dubbed and off-screen voices stay low.",
    ),
)
FRAME_QUANTITIES = (
    Quantity(
        "mouth_opening",
        "Mouth opening",
        "mouth opening",
        "lip gap, 1 = as far as the eyes are apart",
        0,
        2,
        0.01,
        (0, 0.4),
    ),
    Quantity(
        "yaw",
        "Head turned sideways",
        "yaw, degrees",
        "degrees of yaw, + to the picture's right",
        -90,
        90,
        0.5,
        (-45, 45),
    ),
    Quantity("pitch", "Head up or down", "pitch, degrees", "degrees of pitch, + up", -90, 90, 0.5, (-30, 30)),
    Quantity(
        "roll", "Head tilted", "roll, degrees", "degrees of roll, + clockwise", -180, 180, 0.5, (-30, 30)
    ),
)
