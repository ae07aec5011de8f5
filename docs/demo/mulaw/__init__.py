"""A codec of one's own: eight bits a sample on a logarithmic scale (mu-law), 16 kHz, 128 kbit/s."""

import math

import earmark

BITS = 8


class MuLaw:
    info = earmark.Info(
        name="mulaw",
        sample_rate=16000,
        frame_rate=16000,
        codebook_sizes=(2**BITS,),
        domains=("speech", "music", "sound"),
    )

    def __init__(self, info, device):
        self.mu = 255.0

    def encode(self, wav, lengths, seed):
        compressed = wav.sign() * (1 + self.mu * wav.abs().clamp(max=1)).log() / math.log(1 + self.mu)
        codes = ((compressed + 1) / 2 * (2**BITS - 1)).round().long()
        return earmark.Encoded(codes, lengths)

    def decode(self, encoded, seed):
        compressed = encoded.codes / (2**BITS - 1) * 2 - 1
        return compressed.sign() * ((1 + self.mu) ** compressed.abs() - 1) / self.mu
