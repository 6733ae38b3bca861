"""What a person can do about each reason for which an input is rejected."""

from __future__ import annotations

_ADVICE = {
    # the listing
    "missing-file": "The data set's list names a file that is not there. Fetch it, or take it off the list.",
    "outside-root": "A line of the list leads out of the data set's folder. Correct the list.",
    "listed-twice": "Nothing to do: the first mention was used. Remove the second to be rid of this line.",
    "unreadable-folder": "Give yourself the right to read the folder, then run with --retry-rejects.",
    # the file
    "broken-symlink": "Restore what the link points to, then run with --retry-rejects.",
    "directory": "Rename the folder: it has a video's suffix.",
    "not-a-file": "Nothing to do: pipes, sockets and devices are not read.",
    "empty-file": "Copy or download the file again.",
    "unreadable-file": "Give yourself the right to read the file, then run with --retry-rejects.",
    "read-error": "The disk or the network failed. Run the same command again; it tries these again.",
    "not-media": "The file holds something else than its name says. Remove it or fetch it again.",
    "forbidden-format": "Convert it to MP4 with ffmpeg yourself, if you trust it.",
    "truncated": "The file breaks off. Copy or download it again.",
    "decode-error": "Play it. If it plays, convert it with ffmpeg; if not, fetch it again.",
    "decode-timeout": "ffmpeg hangs on this file. Convert it, or leave it out.",
    "no-video": "Nothing to do: there is only sound in it.",
    "too-large": "Scale it down first.",
    "too-long": "Cut it into parts first.",
    "start-gap": "Picture and sound begin far apart. Cut the file so that both begin together.",
    # the face
    "no-face": "Look at one. If there is a face, try --tracker face-alignment, or other track settings.",
    "face-too-small": "Lower track.min_face_px if you want such faces; they will be blurred.",
    "profile-only": "Faces turned this far give no reliable lips. Raise track.max_asymmetry to have them.",
    "track-too-short": "The face is seen too briefly or too unsteadily. Lower track.min_track_frames, or try "
    "--tracker face-alignment.",
    "degenerate-landmarks": "The landmarks collapsed. Try --tracker face-alignment; please report it.",
    "model-missing": "Install what the message names, then run with --retry-rejects.",
    # the run
    "internal-error": "A mistake in this program: please report it with the detail shown here.",
    "worker-crashed": "The worker died here twice. Play the clip; leave it out, or report it.",
    "out-of-memory": "The machine ran short of memory. Try fewer --workers; the same command tries again.",
    "worker-stuck": "The worker stood still at this clip. Run the same command again; it tries these again.",
}
_OTHERWISE = "See the detail; after a change, run again with --retry-rejects."


def advice(reason: str) -> str:
    """A sentence for a person; a general one for a reason that has none of its own."""
    return _ADVICE.get(reason, _OTHERWISE)
