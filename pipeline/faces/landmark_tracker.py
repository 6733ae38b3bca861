"""Faces carried from frame to frame by their own landmarks, and searched again where these stop fitting."""

from __future__ import annotations

import cv2
import numpy as np

from syncdiff.pipeline.faces.backend import FrameBackend, Shapes, box_iou, box_of_shape
from syncdiff.pipeline.faces.tracker import SAME_FACE_IOU, TrackConfig, Tracker, TrackState
from syncdiff.pipeline.records import F32, U8

_LOW_UNCERTAINTY = 0.5  # as a share of the most that is allowed
_ONE_FACE_IOU = 0.5  # two followed boxes that overlap by more are on one face
_WINDOW_FACE_PX = 100  # a lost face is looked for at this size: HOG's window is 80 px
_WINDOW_MARGIN = 0.7  # and this far around its last place, in box sides
_ROLLS_RAD = tuple(float(np.deg2rad(turn)) for turn in (0, -45, 45, -90, 90, 180))


class LandmarkTracker(Tracker):
    """Detects seldom: a face's landmarks in one frame say where to look for them in the next."""

    def __init__(self, backend: FrameBackend, config: TrackConfig) -> None:
        super().__init__(backend, config)
        self._backend = backend
        self._next_search = 0
        self._fruitless = 0  # searches in a row that found nobody

    def feed(self, frame: U8) -> None:
        """The next frame, RGB uint8 [H,W,3]."""
        cut = self._cuts.add(frame)
        for face in self._faces:
            if face.missing:
                self._find_again(face, frame, carry=True)
            elif cut or not self._carry(face, frame):
                if cut:
                    face.sure = len(face)  # what was followed until the cut is not in question
                face.lose()
                self._find_again(face, frame, carry=False)
        if cut:
            self._fruitless = 0
        if cut or self.frames >= self._next_search:
            self._search(frame)
        self._next_frame()

    def _carry(self, face: TrackState, frame: U8) -> bool:
        """The face's entry for this frame from its place in the last one; whether it is still on the face."""
        box, roll = face.place()
        shapes = self._quick_fit(face, frame, box, roll) or self._backend.fit(frame, box, roll)
        if not self._fits(shapes) or _jumped(box[0], box_of_shape(shapes.landmarks_px)[0][0]):
            face.sure = len(face)  # every entry so far did fit
            return False
        face.add(shapes.landmarks_px[0], face.scores[-1])
        if float(shapes.uncertainty[0]) > _LOW_UNCERTAINTY * self._max_uncertainty:
            face.next_fit = self.frames + 1
        elif self.frames >= face.next_fit:
            face.next_fit = self.frames + self._config.doubt_interval
        return self.frames < face.next_check or self._check(face, frame, shapes)

    def _quick_fit(self, face: TrackState, frame: U8, box: F32, roll: F32) -> Shapes | None:
        """The shape without its uncertainty; None if that is due, or if the shape has changed much."""
        if self.frames >= face.next_fit:
            return None
        landmarks = self._backend.landmarks(frame, box, roll)
        moved = landmarks[0] - face.shapes[-1]
        moved -= moved.mean(axis=0)
        change = float(np.hypot(moved[:, 0], moved[:, 1]).mean()) / max(float(box[0, 2] - box[0, 0]), 1e-6)
        if change > _LOW_UNCERTAINTY * self._max_uncertainty:
            return None
        return Shapes(landmarks, np.zeros(1, np.float32))

    def _check(self, face: TrackState, frame: U8, shapes: Shapes) -> bool:
        """Ask the detector about a shape, and the thorough one, if it is its turn, where the first denies."""
        config = self._config
        box, roll = box_of_shape(shapes.landmarks_px)
        score = self._backend.verify(frame, box[0], float(roll[0]))
        wait = config.verify_interval if score >= config.sure_score else 1
        if score < self._backend.min_score:
            if self.frames < face.next_thorough:
                return False
            face.next_thorough = self.frames + config.thorough_interval
            wait = config.thorough_interval
            score = self._backend.verify(frame, box[0], float(roll[0]), thorough=True)
            if score < self._backend.min_score:
                return False
        face.scores[-1] = score
        face.sure = len(face)
        face.next_check = self.frames + wait
        return True

    def _find_again(self, face: TrackState, frame: U8, carry: bool) -> None:
        """Look for a lost face in its last place (unless it was lost there just now), then around it."""
        box, roll = face.place()
        if len(face) == self.frames - face.start:
            face.skip()
        if carry and self._resume(face, frame, self._backend.fit(frame, box, roll)):
            return
        for near in self._look_around(frame, box[0]):
            if self._resume(face, frame, self._settle(frame, near, 0.0)):
                return

    def _resume(self, face: TrackState, frame: U8, shapes: Shapes) -> bool:
        """Take a lost face up again with this shape, unless another face is there or the shape is not
        believed.
        """
        others = [other.place()[0][0] for other in self._faces if other is not face and not other.missing]
        place = box_of_shape(shapes.landmarks_px)[0]
        taken = bool(others) and float(box_iou(place, np.stack(others)).max()) > _ONE_FACE_IOU
        if taken or not self._fits(shapes) or not self._check(face, frame, shapes):
            return False
        face.shapes[-1] = shapes.landmarks_px[0]
        face.detected[-1] = True
        face.missing = False
        return True

    def _look_around(self, frame: U8, box: F32) -> F32:
        """Boxes [n,4] of faces near a box [4], best first."""
        side = max(float(box[2] - box[0]), 1.0)
        reach = _WINDOW_MARGIN * side
        height, width = frame.shape[:2]
        x0, y0 = int(np.clip(box[0] - reach, 0, width - 1)), int(np.clip(box[1] - reach, 0, height - 1))
        x1, y1 = int(np.clip(box[2] + reach, x0 + 1, width)), int(np.clip(box[3] + reach, y0 + 1, height))
        scale = _WINDOW_FACE_PX / side
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        window = np.asarray(cv2.resize(frame[y0:y1, x0:x1], size, interpolation=how), np.uint8)
        boxes = self._backend.detect(window).boxes_px / np.float32(scale)
        boxes = boxes + np.array([x0, y0, x0, y0], np.float32)
        return np.asarray(boxes[box_iou(boxes, box[None])[:, 0] > SAME_FACE_IOU], np.float32)

    def _settle(self, frame: U8, box: F32, roll: float) -> Shapes:
        """The shape in a detector's box [4]. Fitted twice: then from the box that the first fit gave."""
        shapes = self._backend.fit(frame, box[None], np.array([roll], np.float32))
        return self._backend.fit(frame, *box_of_shape(shapes.landmarks_px))

    def _search(self, frame: U8) -> None:
        """Look for new faces in the whole frame; harder, but less often, as long as there are none."""
        config, last = self._config, self._backend.detector_levels - 1
        if self._following():
            levels = range(1)
        elif self._fruitless == 0:
            levels = range(last + 1)  # the first search of a shot goes to the end; later ones take turns
        else:
            levels = range(turn := self._fruitless % (last + 1), turn + 1)
        for level in levels:
            for box in self._backend.detect(frame, level).boxes_px:
                followed = [face.place()[0][0] for face in self._faces]
                if len(followed) >= config.max_faces:
                    break
                if followed and box_iou(box[None], np.stack(followed)).max() > SAME_FACE_IOU:
                    continue  # no new face
                if float(box[2] - box[0]) < config.min_face_px:
                    self.refused["face-too-small"] += 1
                else:
                    self._begin(frame, box, thorough=level == last)
            if self._following():
                break
        if self._following():
            wait = config.detect_interval
            self._fruitless = 0
        else:
            wait = min(config.detect_interval, config.search_interval * 2 ** min(self._fruitless, 8))
            self._fruitless += 1
        self._next_search = self.frames + wait

    def _following(self) -> bool:
        return any(not face.missing for face in self._faces)

    def _begin(self, frame: U8, box: F32, thorough: bool) -> None:
        """Follow the face in a detector's box [4], if its shape fits and the detector says so again.

        The thorough detector finds faces of any tilt, so these are tried, and is believed where the quick one
        denies, as long as the shape fits.
        """
        config = self._config
        best: tuple[float, F32] | None = None
        for roll in _ROLLS_RAD if thorough else (0.0,):
            shapes = self._settle(frame, box, roll)
            if not self._fits(shapes):
                continue
            place, turn = box_of_shape(shapes.landmarks_px)
            score = self._backend.verify(frame, place[0], float(turn[0]))
            if best is None or score > best[0]:
                best = score, shapes.landmarks_px[0]
            if score >= config.sure_score:
                break
        if best is None or (best[0] < config.start_score and not thorough):
            return
        face = TrackState(self.frames, sure=1, next_check=self.frames + 1)
        face.add(best[1], best[0])
        if best[0] < config.start_score:
            face.next_check = face.next_thorough = self.frames + config.thorough_interval
        self._faces.append(face)


def _jumped(old: F32, new: F32) -> bool:
    """Whether a box [4] moved by more than a quarter of its side, or its size changed by a quarter."""
    side = max(float(old[2] - old[0]), 1e-6)
    moved = np.abs((new - old).reshape(2, 2).mean(axis=0)).max()
    return bool(moved > 0.25 * side or not 0.8 < float(new[2] - new[0]) / side < 1.25)
