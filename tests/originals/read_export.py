"""Reads an export with the loader of the project that it is for, in that project's Python; prints JSON.

    python read_export.py NAME CHECKOUT EXPORT

What a loader imports but does not use here (face detectors, noise files) is replaced by an empty module.
"""

from __future__ import annotations

import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch


def empty_module(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    sys.modules[name] = module


def shape(value: Any) -> list[int]:
    return list(np.shape(value))


def avhubert(checkout: Path, export: Path) -> dict[str, Any]:
    sys.path.insert(0, str(checkout / "avhubert"))
    sys.argv = sys.argv[:1]  # with one argument their modules import each other by plain names
    from fairseq.data import Dictionary
    from hubert_dataset import AVHubertDataset

    words = Dictionary.load(str(export / "dict.wrd.txt"))
    dataset = AVHubertDataset(
        str(export / "train.tsv"), 25, [str(export / "train.wrd")], [-1], [words.pad()], [words.eos()],
        label_processors=[lambda line: words.encode_line(line, append_eos=False).long()],
        pad_audio=True, normalize=True, stack_order_audio=4, single_target=True, image_mean=0.421,
        image_std=0.165, image_crop_size=88, modalities=["audio", "video"], is_s2s=False, shuffle=False,
        max_sample_size=500,
    )  # fmt: skip
    item = dataset[0]
    batch = dataset.collater([dataset[i] for i in range(min(2, len(dataset)))])
    return {
        "rows": len(dataset),
        "video": shape(item["video_source"]),
        "audio": shape(item["audio_source"]),
        "id": item["fid"],
        "label": shape(item["label_list"][0]),
        "unknown": int((item["label_list"][0] == words.unk()).sum()),
        "batch": shape(batch["net_input"]["source"]["video"]),
        "mean": float(item["video_source"].mean()),
    }


def km(checkout: Path, export: Path) -> dict[str, Any]:
    """AV-HuBERT's pre-training: frame labels beside the manifest, their lengths verified by the loader."""
    sys.path.insert(0, str(checkout / "avhubert"))
    sys.argv = sys.argv[:1]
    from fairseq.data import Dictionary
    from hubert_dataset import AVHubertDataset

    units = Dictionary.load(str(export / "dict.km.txt"))
    dataset = AVHubertDataset(
        str(export / "train.tsv"), 25, [str(export / "train.km")], [25], [units.pad()], [units.eos()],
        label_processors=[lambda line: units.encode_line(line, append_eos=False).long()],
        pad_audio=False, stack_order_audio=4, image_mean=0.421, image_std=0.165,
        modalities=["audio", "video"],
    )  # fmt: skip
    return {"rows": len(dataset), "label": shape(dataset[0]["label_list"][0])}


def vsp_llm(checkout: Path, export: Path) -> dict[str, Any]:
    import transformers

    def tokenizer(text: str, return_tensors: str) -> Any:  # a language model's; only its form matters here
        ids = torch.tensor([[1, *(ord(c) % 250 + 3 for c in text)]])
        return types.SimpleNamespace(input_ids=ids)

    transformers.AutoTokenizer.from_pretrained = lambda *_: tokenizer
    empty_module("src")
    sys.modules["src"].__path__ = [str(checkout / "src")]  # type: ignore[attr-defined]
    sys.argv = ["train", "x"]
    from src.vsp_llm_dataset import VSP_LLM_dataset

    dataset = VSP_LLM_dataset(
        str(export / "train.tsv"), 25, "none", [str(export / "train.wrd")], [-1], normalize=True,
        stack_order_audio=4, single_target=True, image_mean=0.421, image_std=0.165, modalities=["video"],
        is_s2s=True, max_sample_size=500,
    )  # fmt: skip
    item = dataset[0]
    return {
        "rows": len(dataset),
        "video": shape(item["video_source"]),
        "frames": int(item["cluster_counts"].sum()),
        "runs": len(item["cluster_counts"]),
    }


def fairseq_features(checkout: Path, export: Path) -> dict[str, Any]:
    sys.path.insert(0, str(checkout / "avhubert" / "clustering"))
    from dump_km_label import get_feat_iterator
    from learn_kmeans import load_feature

    iterate, rows = get_feat_iterator(str(export), "train", 2, 0)
    features = load_feature(str(export), "train", 2, 0, -1)
    return {"rows": rows, "first": shape(next(iter(iterate()))), "all": shape(features)}


def avh_align(checkout: Path, export: Path) -> dict[str, Any]:
    sys.path.insert(0, str(checkout / "avh_sup"))
    from datasets import AV1M_trainval_dataset

    config = {"root_path": str(export), "csv_root_path": str(export), "apply_l2": True}
    dataset = AV1M_trainval_dataset(config, split="train")
    video, audio, label, path = dataset[0]
    return {"rows": len(dataset), "video": shape(video), "audio": shape(audio), "label": label, "path": path}


def auto_avsr(checkout: Path, export: Path) -> dict[str, Any]:
    sys.path.insert(0, str(checkout))
    from datamodule.av_dataset import AVDataset
    from datamodule.transforms import AudioTransform, VideoTransform

    label_file = next((export / "labels").glob("*_train_*.csv"))
    sizes = {}
    for modality in ("video", "audio"):
        transforms = AudioTransform("val"), VideoTransform("val")
        dataset = AVDataset(str(export), str(label_file), "val", modality, *transforms)
        item = dataset[0]
        sizes[modality] = shape(item["input"])
    return {
        "rows": len(dataset), "frames": dataset.input_lengths[0], "target": item["target"].tolist(), **sizes
    }  # fmt: skip


def auto_avsr_patches(checkout: Path, export: Path) -> dict[str, Any]:
    """Their own crop of a whole video with the landmarks that we exported."""
    import pickle

    import torchvision

    sys.path.insert(0, str(checkout / "preparation"))
    from detectors.retinaface.video_process import VideoProcess

    landmarks = pickle.loads((export / "landmarks.pkl").read_bytes())
    video = torchvision.io.read_video(str(export / "video.mp4"), pts_unit="sec")[0].numpy()
    patches = VideoProcess(convert_gray=False)(video, landmarks)
    np.save(export / "theirs.npy", patches)
    return {"patches": shape(patches), "frames": len(video), "landmarks": len(landmarks)}


def talklip(checkout: Path, export: Path) -> dict[str, Any]:
    os.chdir(checkout)
    source = (checkout / "train.py").read_text()
    # Their module loads AV-HuBERT and its models on import; the data set's class stands on its own.
    start, stop = source.index("class Talklipdata"), source.index("def collater_seq_label_s2s")
    import cv2
    import torch.nn.functional
    from python_speech_features import logfbank
    from scipy.io import wavfile

    listing = (checkout / "inf_test.py").read_text()
    first, last = listing.index("def parse_filelist"), listing.index("class Talklipdata")
    names: dict[str, Any] = {
        "np": np, "torch": torch, "F": torch.nn.functional, "cv2": cv2, "random": random, "os": os,
        "logfbank": logfbank, "wavfile": wavfile,
    }  # fmt: skip
    exec(compile(listing[first:last] + source[start:stop], "talklip", "exec"), names)
    args = types.SimpleNamespace(
        video_root=export / "video", bbx_root=export / "bbx", audio_root=export / "audio",
        word_root=export / "text", file_dir=export / "filelist",
    )  # fmt: skip
    dataset = names["Talklipdata"]("train", args, lambda text: text.strip())
    pictures, spectrogram, truth, text, frames, _, images, boxes = dataset[0]
    return {
        "rows": len(dataset), "input": shape(pictures), "truth": shape(truth), "text": text,
        "spectrogram": shape(spectrogram), "frames": frames, "images": shape(images), "boxes": shape(boxes),
    }  # fmt: skip


def latentsync(checkout: Path, export: Path) -> dict[str, Any]:
    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    empty_module("insightface")
    empty_module("insightface.app", FaceAnalysis=None)
    import cv2
    from latentsync.data.syncnet_dataset import SyncNetDataset
    from latentsync.data.unet_dataset import UNetDataset
    from omegaconf import OmegaConf

    mask = export / "mask.png"
    cv2.imwrite(str(mask), np.full((256, 256, 3), 255, np.uint8))  # theirs is no part of a text-only copy
    data = {
        "train_fileslist": str(export / "train.txt"), "resolution": 256, "num_frames": 16,
        "audio_sample_rate": 16000, "video_fps": 25, "mask_image_path": str(mask),
        "audio_mel_cache_dir": str(export / "mel"),
    }  # fmt: skip
    config = OmegaConf.create(
        {"data": data, "model": {"add_audio_layer": True}, "run": {"use_syncnet": True}}
    )
    unet = UNetDataset("", config)
    unet.worker_init_fn(0)
    item = unet[0]
    if not (checkout / "latentsync/utils/mask.png").is_file():
        import latentsync.utils.image_processor as processor

        processor.load_fixed_mask.__defaults__ = (str(mask),)
    expert = SyncNetDataset("", str(export / "train.txt"), config)
    expert.worker_init_fn(0)
    pair = expert[0]
    sound = unet.read_audio(unet.video_paths[0])
    return {
        "rows": len(unet), "pictures": shape(item["gt_pixel_values"]), "mel": shape(item["mel"]),
        "expert": shape(pair["frames"]), "expert_mel": shape(pair["audio_samples"]), "steps": sound.shape[1],
        "first_mel": sound.numpy().tolist(), "path": unet.video_paths[0],
    }  # fmt: skip


def latentsync_faces(checkout: Path, export: Path) -> dict[str, Any]:
    """Their alignment of frames with the three points of the landmarks that are given."""
    import cv2

    sys.path.insert(0, str(checkout))
    from latentsync.utils.affine_transform import AlignRestore

    frames, landmarks = np.load(export / "frames.npy"), np.load(export / "landmarks.npy")
    aligner = AlignRestore(resolution=256, dtype=torch.float32)
    faces = []
    for frame, points in zip(frames, landmarks, strict=True):
        three = np.round([points[17:22].mean(0), points[22:27].mean(0), points[27:36].mean(0)])
        face, _ = aligner.align_warp_face(frame.copy(), landmarks3=three, smooth=True)
        faces.append(cv2.resize(face, (256, 256), interpolation=cv2.INTER_LANCZOS4))
    np.save(export / "theirs.npy", np.stack(faces))
    return {"faces": len(faces)}


def musetalk(checkout: Path, export: Path) -> dict[str, Any]:
    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    import transformers
    from musetalk.data.dataset import FaceDataset

    extractor = transformers.WhisperFeatureExtractor()
    transformers.AutoFeatureExtractor.from_pretrained = lambda *_: extractor
    import musetalk.data.dataset as module

    module.AutoFeatureExtractor.from_pretrained = lambda *_: extractor
    config = {
        "T": 1, "random_margin_method": "normal", "image_size": 256, "top_k_ratio": 0.51,
        "sample_method": "pose_similarity_and_mouth_dissimilarity", "contorl_face_min_size": True,
        "padding_pixel_mouth": 10, "min_face_size": 40, "whisper_path": "",
        "cropping_jaw2edge_margin_mean": 10,
        "cropping_jaw2edge_margin_std": 10, "crop_type": "dynamic_margin_crop_resize",
    }  # fmt: skip
    dataset = FaceDataset(config, [str(export / "train.txt")], str(export / "meta"))
    item = dataset[0]
    return {
        "rows": len(dataset.meta_paths), "pictures": shape(item["pixel_values_vid"]),
        "mel": shape(item["mel"]), "mask": float(item["pixel_values_face_mask"].mean()),
        "whisper": shape(item["audio_feature"]),
    }  # fmt: skip


def keysync(checkout: Path, export: Path) -> dict[str, Any]:
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda *_: None
    sys.path.insert(0, str(checkout))
    empty_module("sgm")
    sys.modules["sgm"].__path__ = [str(checkout / "sgm")]  # type: ignore[attr-defined]
    empty_module("sgm.data")
    sys.modules["sgm.data"].__path__ = [str(checkout / "sgm" / "data")]  # type: ignore[attr-defined]
    from sgm.data.video_dataset_latent import VideoDataset

    dataset = VideoDataset(
        str(export / "train.txt"), resize_size=128, audio_folder="audios", video_folder="videos",
        landmarks_folder="landmarks", audio_emb_folder="audios_emb", video_extension=".mp4", num_frames=5,
        from_audio_embedding=True, audio_emb_type="wavlm", get_masks=True, what_mask="box", cond_noise=0.0,
        latent_type="stable", balance_datasets=False,
    )  # fmt: skip
    try:
        item = dataset._get_frames_and_audio(0)
    except UnboundLocalError:  # masks are read only beside precomputed latents in that version
        dataset.get_masks = False
        item = dataset._get_frames_and_audio(0)
    masks, _ = dataset._load_landmarks(dataset.landmark_filelist[0], (256, 256), (32, 32), [0, 1])
    return {
        "rows": len(dataset), "target": shape(item[3]), "audio": shape(item[4]), "sound": shape(item[5]),
        "mask": float(masks.mean()),
    }  # fmt: skip


if __name__ == "__main__":
    name, checkout, export = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    random.seed(0)
    np.random.seed(0)
    print("RESULT " + json.dumps(globals()[name](checkout, export)))
