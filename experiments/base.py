"""Every key of an experiment, with its default: DDPM on CIFAR-10 where nothing else is said.

A section with a `name` picks a public function or class by that name; its options stand in the sub-section of that name,
so that `--config.sampler.name=ddim --config.sampler.ddim.eta=0.5` says all there is to say.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults."""
    config = ConfigDict(
        dict(
            seed=0,  # of parameters, batches, noise and dropout
            data=dict(
                name="digits",  # a file of ddpm/data: digits, tfds, folder, npz
                flip=False,  # mirror images left to right at random
                resident_bytes=2**30,  # a larger set streams from disk instead of living on the devices
                digits=dict(split="train"),
                tfds=dict(
                    dataset="cifar10",
                    split="train",
                    data_dir="~/tensorflow_datasets",
                    size=0,  # resize and centre-crop to so many pixels; 0 where all images are of one size
                ),
                folder=dict(path="", size=64, channels=3),
                npz=dict(path="", array="arr_0", labels="arr_1", captions="captions"),
            ),
            latents=dict(  # to diffuse in the space of an autoencoder
                autoencoder="",  # workdir of one trained here, folder of diffusers' AutoencoderKL, or a TAESD; '' for pixels
                path="",  # folder of the encoded data, which --mode encode writes
                batch_size=32,  # images encoded or decoded at once, over all devices
            ),
            process=dict(
                name="VP",  # a class of ddpm/diffusion/processes: VP, ContinuousVP, SubVP, VE, RectifiedFlow, EDM, LearnedVP
                ContinuousVP=dict(t_min=1e-5),
                SubVP=dict(beta_min=0.1, beta_max=20.0, t_min=1e-5),
                VP=dict(told="share"),  # networks see 1000 t / T of t; 'index': t - 1, 'scaled_index': 1000 (t - 1) / T
                VE=dict(sigma_min=0.02, sigma_max=100.0, t_min=1e-5),
                RectifiedFlow=dict(shift=1.0, t_min=1e-5),
                EDM=dict(sigma_min=0.002, sigma_max=80.0),
                LearnedVP=dict(log_snr_max=13.3, log_snr_min=-5.0, features=1024),
            ),
            schedule=dict(  # of process VP
                name="linear",  # a function of ddpm/diffusion/schedules.py: linear, quadratic, cosine, sigmoid, sqrt
                T=1000,  # noise levels
                shift=1.0,  # signal amplitudes relative to the noise, times this: 64 / resolution in simple diffusion
                zero_terminal_snr=False,  # no signal at all is left at t = T; with prediction x0 or v
                linear=dict(beta_1=1e-4, beta_T=0.02),
                quadratic=dict(beta_1=1e-4, beta_T=0.02),
                cosine=dict(s=0.008, beta_max=0.999),
                sigmoid=dict(start=-3.0, end=3.0, tau=1.0, beta_max=0.999),
                sqrt=dict(s=1e-4, beta_max=0.999),
            ),
            log_snr=dict(  # of process ContinuousVP
                name="linear",  # a function of ddpm/diffusion/continuous.py: linear, quadratic, cosine, sigmoid, sqrt
                shift=1.0,  # as above
                linear=dict(beta_min=0.1, beta_max=20.0),
                quadratic=dict(beta_min=0.1, beta_max=20.0),
                cosine=dict(s=0.008),
                sigmoid=dict(start=-3.0, end=3.0, tau=1.0),
                sqrt=dict(s=1e-4),
            ),
            prediction=dict(
                name="eps",  # a function of ddpm/diffusion/predictions.py: eps, x0, v, score, velocity, edm
                edm=dict(sigma_data=0.5),
            ),
            loss=dict(
                name="weighted",  # a function of ddpm/diffusion/losses.py: weighted, uncertain, hybrid, vlb, vdm
                hybrid=dict(vlb_weight=1e-3),
                vlb=dict(variance="learned", rescaled=True),
            ),
            weight=dict(  # of the squared error, in losses that have one
                name="simple",  # a function of ddpm/diffusion/weights.py: simple, output, vlb, min_snr, p2, edm, sigmoid
                min_snr=dict(gamma=5.0),
                p2=dict(gamma=1.0, k=1.0),
                edm=dict(sigma_data=0.5),
                sigmoid=dict(bias=2.0),
            ),
            timesteps=dict(
                name="uniform",  # of ddpm/diffusion/timesteps.py: uniform, log_normal, logit_normal, loss_second_moment
                stratified=False,  # a batch's times cover their distribution evenly
                log_normal=dict(mean=-1.2, std=1.2),
                logit_normal=dict(mean=0.0, std=1.0),
                loss_second_moment=dict(history=10, uniform_share=1e-3),
            ),
            model=dict(
                name="unet",  # a file of ddpm/models: unet, dit
                unet=dict(
                    patch=1,  # pixels of a side that become features; the levels are smaller by that
                    channels=128,  # features at full resolution
                    channel_mult=(1, 2, 2, 2),  # features of each level, relative to `channels`
                    num_res_blocks=2,  # a level
                    attention_resolutions=(16,),  # heights of feature maps with attention
                    attention="simple",  # DDPM's; 'transformer': the block of latent diffusion
                    time="norm",  # told to the residual blocks; 'token': by cross-attention, beside the text
                    num_heads=1,
                    dropout=0.1,
                    scale_shift=False,  # adaptive group norm instead of adding the time embedding
                    head_channels=0,  # features of a head, instead of num_heads
                    norm_groups=0,  # 0: 32, or fewer that leave 4 features to a group; exports need one number
                    norm_eps=1e-6,  # 1e-5 in networks of PyTorch
                    downsample_padding=0,  # below and to the right; 1: on all sides, as PyTorch
                    resblock_updown=False,  # residual blocks halve and double the image
                    freq_shift=1,  # how frequencies of times are spaced: 1 as in DDPM's code, 0 as in improved DDPM's
                    time_channels=0,  # features of a time's sines and cosines; 0: `channels`
                    fourier=(),  # exponents n of sin and cos(2 pi 2^n x) beside x; VDM uses (6, 7)
                    dtype="float32",  # of activations; bfloat16 is faster on accelerators
                    remat=False,  # recompute activations in the backward pass: less memory, more time
                ),
                dit=dict(
                    patch_size=2,  # pixels of its side
                    width=384,  # features of a token
                    depth=12,  # blocks
                    num_heads=6,
                    mlp_ratio=4.0,  # features inside the feed-forward network, relative to `width`
                    dropout=0.0,
                    positions="sincos",  # or rotary
                    freq_shift=1,  # as above; 0 in the paper's code
                    dtype="float32",  # as above
                    remat=False,
                ),
                noisy_classifier=dict(  # of loss cross_entropy
                    channels=128,
                    channel_mult=(1, 2, 3, 4),
                    num_res_blocks=2,
                    attention_resolutions=(16, 8),
                    num_heads=4,
                    dropout=0.0,
                    scale_shift=True,
                    head_channels=0,  # these as above
                    norm_groups=0,
                    norm_eps=1e-6,
                    downsample_padding=0,
                    resblock_updown=False,
                    freq_shift=1,
                    as_published=False,  # attention in the middle, and classes straight from the pool
                ),
            ),
            autoencoder=dict(
                name="",  # a file of ddpm/models/autoencoders that is trained, kl or vq; '' trains a diffusion model
                pixel_loss="l1",  # a function of ddpm/autoencoding/pixel_losses.py: l1, l2
                perceptual_weight=0.0,  # of a distance between features of EfficientNet-Lite0
                perceptual_path="",  # of its weights; '' looks for an installed package that carries them
                discriminator_weight=0.0,  # of what deceives it, beside what is as strong in the pixels; 0 for none
                discriminator_start=50_000,  # step at which it begins to learn and to be heard
                discriminator_channels=64,
                kl=dict(
                    channels=128,  # features at full resolution
                    channel_mult=(1, 2, 4, 4),  # features of each level; the latents are 2^(levels - 1) times smaller
                    num_res_blocks=2,  # a level; one more in the decoder
                    latent_channels=4,
                    kl_weight=1e-6,  # of the divergence from N(0, 1), in nats for each channel of each pixel
                    dtype="float32",  # as above
                ),
                vq=dict(
                    channels=128,
                    channel_mult=(1, 2, 4, 4),
                    num_res_blocks=2,
                    latent_channels=4,
                    codes=1024,  # in the book
                    beta=0.25,  # how much the encoder keeps to its codes
                    dtype="float32",
                ),
            ),
            condition=dict(
                labels=False,  # tell the network the class of each image
                text=dict(
                    name="",  # a file of ddpm/text: minilm, clip, t5, to tell it the captions; '' for none
                    minilm=dict(length=32, path=""),
                    clip=dict(length=77, path="", padded=False),
                    t5=dict(length=77, path=""),
                ),
                image=dict(
                    name="",  # a function of ddpm/degradations.py: super_resolution, inpainting; '' for none
                    super_resolution=dict(factor=4, noise=0.0),
                ),
                null_rate=0.1,  # share of the examples of which it is told nothing, for guidance; 0: it is always told
            ),
            mesh=dict(  # how all devices of all processes are laid out; those left over see other examples
                fsdp=1,  # devices that share one copy of parameters, EMA and optimizer state, each with its own examples
                tensor=1,  # devices that share the features of the same examples
            ),
            optimizer=dict(
                name="adam",  # a function of optax
                learning_rate=2e-4,
                warmup_steps=5000,  # of linear growth from 0
                clip_norm=1.0,  # global norm of the gradient
                accumulate=1,  # batches an update
                adam=dict(b1=0.9, b2=0.999, eps=1e-8),
                adamw=dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4),
            ),
            ema=dict(
                decay=0.9999,
                warmup=False,  # min(decay, (1 + n) / (10 + n)) after n updates: for short runs
            ),
            training=dict(
                cpu_devices=1,  # devices a CPU is split into
                batch_size=128,  # over all devices
                num_steps=800_000,  # optimizer updates, skipped ones included
                steps_per_dispatch=0,  # steps compiled into one; 0 chooses: 1 on CPU, 10 on accelerators
                log_every=100,
                sample_every=10_000,  # 64 images of fixed seeds, and a checkpoint; 0 for never
                evaluate_every=50_000,  # figures of the EMA, and a checkpoint; 0 for never
                save_every=5_000,  # and at the end
                keep=2,  # newest checkpoints kept
                keep_every=0,  # keep also multiples of this; 0 for none
                wandb="",  # project of Weights & Biases that figures go to as well; '' for none
                max_skipped=20,  # batches in a row without a finite loss before the run stops
                hang_after=600,  # seconds of waiting for a batch or a step before the process ends; 0 for never
            ),
            sampler=dict(
                name="ancestral",  # a file of ddpm/sampling, see the table in the README
                num_steps=1000,  # at most T for a table
                batch_size=64,  # images drawn at once, over all devices
                clip=True,  # clip x0_hat to [-1, 1]
                labels=(),  # classes asked for, in turn; (): drawn evenly
                prompts=(),  # texts asked for, in turn; (): captions of the data
                given="",  # images to restore: an .npz, or the workdir of a run that draws them; '' for those of the data
                given_noise=0.0,  # that is added to them, of a model trained with condition.image.super_resolution.noise
                percentile=0.0,  # of |x0_hat| of an image, such as 0.995: dynamic thresholding; 0 for none
                ancestral=dict(variance="beta"),  # or posterior, optimal, or learned by losses hybrid and vlb
                ddim=dict(eta=0.0),
                dpm_solver=dict(order=2),
                dpm_solver_pp=dict(order=2, multistep=True, third_order="consistent"),
                sde_dpm_solver_pp=dict(order=2),
                unipc=dict(order=2, variant="bh2"),
                deis=dict(order=3),
                pndm=dict(runge_kutta=True),
                heun=dict(s_churn=0.0, s_min=0.0, s_max=float("inf"), s_noise=1.0),
                euler=dict(s_churn=0.0, s_min=0.0, s_max=float("inf"), s_noise=1.0),
                euler_ancestral=dict(eta=1.0),
                predictor_corrector=dict(snr=0.16, corrections=1),
                ode=dict(rtol=1e-5, atol=1e-5, max_steps=4096),  # with num_steps=1: each step of the grid starts anew
            ),
            guidance=dict(
                scale=1.0,  # away from what the model says when it is told nothing: 0 unconditional, 1 off, > 1 guided
                interval=(0.0, float("inf")),  # sigma / alpha at which it is guided
                rescale=0.0,  # 0 to 1: bring the spread of x0_hat back to the model's own
                worse="",  # workdir, or workdir@step, of a worse model to be guided away from instead: autoguidance
                classifiers=(),  # workdirs of classifiers of noised images (loss cross_entropy), told the same labels
                classifier_scale=1.0,
                functions=(),  # full names of (x0_hat, condition) -> log p of each image, to go uphill on
                function_scale=1.0,
            ),
            known=dict(  # of the images that are given, where the model was not trained to restore them
                name="",  # a function of ddpm/sampling/projections.py: inpainting, colourisation, super_resolution; '' for nothing
                super_resolution=dict(factor=4),
                resamples=1,  # times that each step is taken: RePaint uses 10
            ),
            grid=dict(
                name="trailing",  # of ddpm/sampling/grids.py: trailing, leading, linspace, quadratic, log_snr, karras, explicit
                final="zero",  # the last step leads to t = 0 without noise; 'sigma_min' to t_min
                log_snr=dict(log_snr_min=-10.2),
                karras=dict(rho=7.0, log_snr_min=-10.2),  # where they start, if there is less at T
                explicit=dict(times=()),
            ),
            evaluation=dict(
                metrics=("fid", "pr"),  # functions of ddpm/evaluation/metrics.py; in mode eval also of likelihoods.py
                num=1000,  # samples, or images of a likelihood; --num sets it
                sampler="ddim",  # of the samples while training, and its steps; mode eval takes the section sampler
                num_steps=50,
                reference="",  # real images: a folder, .npz, statistics file, 'cifar10:test'; '' for the training images
                num_reference=0,  # of the reference; 0 for all
                best="fid",  # the metric whose best checkpoint is kept too, by evaluations while training; '' for none
                batch_size=64,  # images a feature network sees at once, over all devices
                vlb_bpd=dict(levels=1000, log_snr_max=13.3),
                ode_bpd=dict(trace="rademacher", rtol=1e-4, atol=1e-4),
                features=dict(
                    name="classifier",  # a file of ddpm/evaluation/features: classifier, efficientnet, inception, pixels
                    classifier=dict(steps=500),
                    inception=dict(path=""),  # of the weights; '' looks for an installed package that carries them
                    efficientnet=dict(path=""),
                ),
            ),
        )
    )
    return (
        config.lock()
    )  # a misspelt key is an error; `with config.unlocked():` adds the options of a choice of one's own
