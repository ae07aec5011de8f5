"""What the names in published datasets look like and mean: written by hand, so that a card's regular expressions
have something to prove."""

from __future__ import annotations

Expected = dict[str, dict[str, str]]

# members of the archives of X-ARES, and what is to be found in their names; § is the number of the split
NAMES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "librispeech_xares": [(f"§{s}-1240-000{i}", {"speaker": f"§{s}"}) for i, s in enumerate(("103", "1034", "26"))],
    "crema_d": [(f"10{i:02d}_DFA_ANG_XX", {"speaker": f"10{i:02d}"}) for i in range(5)],
    "ravdess": [(f"03-01-05-01-01-01-{i:02d}", {"speaker": f"{i:02d}"}) for i in range(1, 4)],
    "speech_commands_v1": [(f"0a7c2a8{i}_nohash_0", {"speaker": f"0a7c2a8{i}"}) for i in range(3)],
    "vocalsound": [(f"f000{i}_0_cough", {"speaker": f"f000{i}"}) for i in range(5)],
    "nsynth": [
        (f"guitar_acoustic_01§-{p:03d}-100", {"group": "guitar_acoustic_01§", "pitch": str(p)}) for p in (0, 60, 100)
    ],
    "esc50": [(f"1-10003{i}-A-0", {"group": f"10003{i}"}) for i in range(3)],
    "urbansound8k": [(f"10003{i}-3-0-0", {"group": f"10003{i}"}) for i in range(3)],
    "gtzan": [(f"blues.0000{i}", {}) for i in range(3)],  # a key with a dot in it
}

# datasets whose labels are in their paths: published names, and what they mean
PATHS: dict[str, Expected] = {
    "libri2mix": {"Libri2Mix/wav16k/max/test/mix_clean/1089-134686-0000_121-127105-0031.wav": {}},
    "laughterscape": {"laughterscape_ver1.0/00001/laugh_00001.wav": {}},
    "gunshot_triangulation": {"iPod1/Glock_shot1.wav": {}},
    "clotho_aqa": {"audio_files/Creaking pier.wav": {}},
    "crema_d": {
        f"AudioWAV/{speaker}_{name}.wav": {"speaker": str(speaker)} | found
        for speaker in range(1001, 1006)
        for name, found in (
            ("DFA_ANG_XX", {"emotion": "anger", "sentence": "DFA"}),
            ("IEO_HAP_HI", {"emotion": "happy", "sentence": "IEO", "level": "high"}),
            ("ITH_SAD_X", {"emotion": "sad", "sentence": "ITH"}),
        )
    },
    "ravdess": {
        f"Actor_{actor}/03-01-{code}-01-02-01-{actor}.wav": {"emotion": emotion, "speaker": actor, "sentence": "02"}
        for actor in ("01", "02", "03", "24")
        for code, emotion in (("01", "neutral"), ("08", "surprised"))
    },
    "libricount": {f"test/{n}_1188-133604-0001.wav": {"label": str(n)} for n in (0, 1, 2, 3, 10)},
    "speech_commands_v1": {
        "bed/0a7c2a8d_nohash_0.wav": {"label": "bed", "speaker": "0a7c2a8d", "split": "train"},
        "bed/1a7c2a8d_nohash_1.wav": {"label": "bed", "speaker": "1a7c2a8d", "split": "valid"},
        "cat/2a7c2a8d_nohash_0.wav": {"label": "cat", "speaker": "2a7c2a8d", "split": "test"},
    },
    "vocalsound": {
        f"audio_16k/{who}_0_{what}.wav": {"speaker": who, "label": what}
        for who in ("f0003", "f0004", "m0005", "m1000", "m1001")
        for what in ("cough", "throatclearing")
    },
    "gtzan": {
        f"genres/{genre}/{genre}.{n:05d}.{kind}": {"genre": genre}
        for genre, kind in (("blues", "wav"), ("hiphop", "au"))
        for n in range(3)
    },
    "vocalset": {
        f"FULL/{singer}{n}/{context}/{technique}/x_{technique}_a.wav": {
            "singer": f"{singer}{n}", "context": context, "technique": technique
        }
        for singer in ("female", "male")
        for n in (1, 2, 11)
        for context, technique in (("scales", "straight"), ("long_tones", "vocal_fry"))
    },
    "instrument_chords": {
        f"Audio_Files/{chord}/{chord}_{n}.wav": {"chord": chord} for chord in ("Major", "Minor") for n in range(3)
    },
    "cat_dog": {
        **{f"cats_dogs/cat_{n}.wav": {"label": "cat"} for n in range(3)},
        **{f"cats_dogs/dog_barking_{n}.wav": {"label": "dog"} for n in range(3)},
    },
}  # fmt: skip
BESIDE = {
    "speech_commands_v1": {
        "validation_list.txt": "bed/1a7c2a8d_nohash_1.wav\n",
        "testing_list.txt": "cat/2a7c2a8d_nohash_0.wav\n",
        "_background_noise_/running_tap.wav": None,
    },
    "gtzan": {"genres/bextract_single.mf": "x", "genres/blues/._blues.00000.wav": "x"},
}  # what lies in the folder and is no clip

# cells of tables that must look as published, {i} is the number of the line; and what the path of the clip tells
CELLS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "voxceleb1": ({"path": "id1027{i}/1zcIwhmdeo4/0000{i}.wav"}, {"speaker": "id1027{i}"}),
    "magnatagatune": (
        {"mp3_path": "{hex}/jacob_heringman-josquin_des_prez_lute_settings-0{i}-de_profundis-0-29.mp3"},
        {"group": "jacob_heringman-josquin_des_prez_lute_settings-0{i}-de_profundis"},
    ),
    "meld": ({"Dialogue_ID": "{i}", "Utterance_ID": "0"}, {}),
    "common_voice_en": ({"path": "common_voice_en_{side}{i}.mp3"}, {}),
    "fsd50k": ({"fname": "{side}{i}", "labels": "Bark,Dog"}, {"tags": "Bark;Dog"}),
    "esc50": ({"filename": "1-10003{i}-A-0.wav", "fold": "{i}"}, {}),
    "urbansound8k": ({"fold": "{i}", "slice_file_name": "10{i}-3-0-0.wav"}, {}),
    "muchin": ({"path": "{i}.mp3"}, {}),
    "emomusic": ({}, {}),
}
