"""Pipelines of what is neither picture, video nor sound: worlds, solids, proteins and words."""

import diffusers
import numpy as np
import torch
import transformers
from diffusers.pipelines.shap_e import ShapERenderer
from pieces import GUIDED, NO_TEXT, embedded, euler, model, pipeline, sees, unipc, word_tokenizer
from video_sound import ltx2_vae
from video_wan import wan_vae
from zoo import PROMPT, awake, clip_text, clip_tokenizer, picture


class Words(torch.nn.Module):
    """A language model of one layer, that sees each token alone."""

    device = torch.device("cpu")

    def __init__(self, tokens=32):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(tokens, 8), torch.nn.Linear(8, tokens)

    def forward(self, input_ids, **more):
        return transformers.modeling_outputs.CausalLMOutput(logits=self.head(self.embedding(input_ids)))


def llada(folder):
    return pipeline("LLaDA2", model=Words(), scheduler=diffusers.BlockRefinementScheduler(), tokenizer=None)


def talks():
    """A tokenizer of conversations."""
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<|vision_start|>"])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def solid(folder, name):
    prior = model(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=16,
        embedding_dim=16,
        num_embeddings=32,
        embedding_proj_dim=32,
        time_embed_dim=64,
        num_layers=1,
        clip_embed_dim=32,
        additional_embeddings=0,
        time_embed_act_fn="gelu",
        norm_in_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
    )
    renderer = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8, n_output=12, background=(0.1,) * 3
    )
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_schedule="exp",
        num_train_timesteps=1024,
        prediction_type="sample",
        use_karras_sigmas=True,
        clip_sample=True,
        clip_sample_range=1.0,
    )
    tokenizer = clip_tokenizer(folder)
    eyes = sees(width=32)
    eyes["image_encoder"] = transformers.CLIPVisionModel(eyes["image_encoder"].config).eval()
    return pipeline(
        name,
        prior=prior,
        shap_e_renderer=renderer.eval(),
        scheduler=scheduler,
        tokenizer=tokenizer,
        text_encoder=clip_text(tokenizer, transformers.CLIPTextModelWithProjection),
        **eyes,
    )


def protein(folder):
    clocks = ("time_emb_bb_ca", "time_emb_local_latents")
    transformer = model(
        "RFD4ProteinaTransformer",
        nlayers=1,
        token_dim=16,
        nheads=2,
        dim_cond=8,
        pair_repr_dim=8,
        latent_dim=4,
        t_emb_dim=8,
        tri_mult_c=8,
        num_sequence_classes=5,
        feats_seq=("xt_bb_ca", "xt_local_latents"),
        feats_cond_seq=clocks,
        feats_pair_repr=("xt_bb_ca_pair_dists",),
        feats_pair_cond=clocks,
    )
    vae = model(
        "RFD4ProteinaAutoencoder",
        atom37_mask=[[True] * 37] * 5,
        allowed_residue_types=[[True] * 5] * 7,
        latent_dim=4,
        n_residue_types=5,
        nlayers=1,
        token_dim=16,
        nheads=2,
        dim_cond=8,
        pair_repr_dim=8,
        encoder_feats_seq=("token_type",),
        decoder_feats_seq=("ca_coors_nm", "z_latent_seq"),
    )
    how = {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0, "tail_steps": 1}
    schedulers = {f"{what}_scheduler": diffusers.RFD4ProteinaScheduler(**how) for what in ("bb_ca", "local_latents")}
    return pipeline("RFD4Proteina", transformer=transformer, vae=vae, recycle_depths=[1, 1, 1], **schedulers)


def cosmos3(folder):
    transformer = model(
        "Cosmos3OmniTransformer",
        head_dim=6,
        hidden_act="relu2",
        hidden_size=6,
        intermediate_size=12,
        latent_channel=16,
        latent_patch_size=1,
        num_attention_heads=1,
        num_hidden_layers=1,
        num_key_value_heads=1,
        patch_latent_dim=16,
        qk_norm_for_text=False,
        rope_axes_dim=[1, 1, 1],
        vocab_size=210,
    )
    parts = {"vae": wan_vae(), "scheduler": unipc(), "enable_safety_checker": False}
    return pipeline("Cosmos3Omni", transformer=awake(transformer), text_tokenizer=talks(), **parts)


def sana_wm(folder):
    transformer = model(
        "SanaWMTransformer3DModel",
        in_channels=4,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        caption_channels=32,
        chunk_plucker_channels=12,
        chunk_plucker_post_attn_blocks=2,
        image_size=32,
        mixed_precision="no",
    )
    return pipeline("SanaWM", transformer=awake(transformer), vae=ltx2_vae(), scheduler=euler(), **NO_TEXT)


TRUE = torch.ones(1, 6, dtype=torch.bool)
CAMERA = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
CAMERA[:, 2, 3] = np.linspace(0, 1, 5)
SHAPED = {"num_inference_steps": 3, "frame_size": 8, "output_type": "latent", "guidance_scale": 4.0}

CASES = {
    "ShapEPipeline": (lambda f: solid(f, "ShapE"), {"prompt": PROMPT, **SHAPED}, {"rendered": True}),
    "ShapEImg2ImgPipeline": (lambda f: solid(f, "ShapEImg2Img"), {"image": picture(), **SHAPED}, {"rendered": True}),
    "RFD4ProteinaPipeline": (
        protein,
        {
            "padding_mask": TRUE,
            "is_in_context_conditioning": ~TRUE,
            "supports_local_latent": TRUE,
            "token_type": torch.zeros(1, 6, dtype=torch.int64),
            "conditioning_features": {
                "condition_sequence_1_residue": torch.zeros(1, 6, dtype=torch.int64),
                "molecule_iid": torch.zeros(1, 6, dtype=torch.int64),
            },
        },
    ),
    "LLaDA2Pipeline": (
        llada,
        {
            "input_ids": torch.arange(4)[None],
            "gen_length": 8,
            "block_length": 4,
            "num_inference_steps": 3,
            "mask_token_id": 31,
            "output_type": "seq",
            "use_chat_template": False,
        },
    ),
    "DiffusionGemmaPipeline": (
        lambda f: pipeline(
            "DiffusionGemma", model=Words(), scheduler=diffusers.BlockRefinementScheduler(), processor=None
        ),
        {},
        {"entry": True},
    ),
    "Cosmos3OmniPipeline": (
        cosmos3,
        {
            **GUIDED,
            "prompt": PROMPT,
            "negative_prompt": "w2",
            "height": 16,
            "width": 16,
            "num_frames": 5,
            "use_system_prompt": False,
            "add_resolution_template": False,
            "add_duration_template": False,
        },
    ),
    "SanaWMPipeline": (
        sana_wm,
        {
            **GUIDED,
            **embedded(32),
            "prompt": None,
            "image": picture(),
            "height": 32,
            "width": 32,
            "c2w": CAMERA,
            "intrinsics": [32.0, 32.0, 16.0, 16.0],
            "num_frames": 5,
        },
    ),
}
"""How each class is built, in a folder for its tokenizer, and called."""

LEFT_OUT = {
    "EasyAnimateControlPipeline": "its own call fails: encode_prompt takes no text_encoder_index",
}
"""Why these have no case."""
