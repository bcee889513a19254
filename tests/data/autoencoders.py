"""A tiny autoencoder in diffusers' format."""

from pathlib import Path

from sbbridge.rng import isolated


def write_autoencoder(folder: Path, seed: int = 0, **options) -> Path:
    """Latents are 4 channels of half the images' sides."""
    from diffusers import AutoencoderKL

    with isolated(seed):
        model = AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            **{"scaling_factor": 0.3, **options},
        )  # fmt: skip
    model.save_pretrained(str(folder))
    return folder
