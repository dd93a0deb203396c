"""Text to speech with eSpeak NG, in a process of its own.

eSpeak NG is licensed under the GNU General Public License, version 3 or later, and is no part of melbench: the optional
extra `synthetic` installs it (library and voices, package espeakng-loader). Only this file loads it. It imports nothing
of melbench and runs by itself, so that the rest of melbench is not linked to eSpeak NG: it sends text and reads sound.

Standard input: one JSON object per line, {"text", "voice" (accent+variant), "rate" (words per minute), "pitch" (0 to
99)}. Standard output: the sample rate, then for each line the number of samples, both as little-endian uint32, and the
samples as int16. Exit code 3 with a line on standard error: a voice is missing.
"""

import ctypes
import json
import struct
import sys
from pathlib import Path

import espeakng_loader

# Constants of speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
ESPEAK_RATE = 1
ESPEAK_PITCH = 3
ESPEAK_CHARS_UTF8 = 1
POS_CHARACTER = 1
EE_OK = 0


def main() -> int:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = Path(espeakng_loader.get_data_path())
    rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        print("eSpeak NG does not find its data", file=sys.stderr)
        return 3
    pieces: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def receive(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(receive)
    out = sys.stdout.buffer
    out.write(struct.pack("<I", rate))
    voice = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["voice"] != voice:
            voice = request["voice"]
            # eSpeak NG would silently replace an unknown variant (after the +) by the accent's own voice.
            variant = data / "voices" / "!v" / voice.partition("+")[2]
            if not variant.exists() or library.espeak_SetVoiceByName(voice.encode()) != EE_OK:
                print(f"eSpeak NG has no voice {voice!r}", file=sys.stderr)
                return 3
        library.espeak_SetParameter(ESPEAK_RATE, request["rate"], 0)
        library.espeak_SetParameter(ESPEAK_PITCH, request["pitch"], 0)
        text = request["text"].encode()
        pieces.clear()
        # Breath is random noise: seeded for each word, so that a clip does not depend on the clips before it.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.espeak_Synth(text, len(text) + 1, 0, POS_CHARACTER, 0, ESPEAK_CHARS_UTF8, None, None)
        sound = b"".join(pieces)
        out.write(struct.pack("<I", len(sound) // 2) + sound)
    return 0


if __name__ == "__main__":
    sys.exit(main())
