//! Attention for every GPU: tiled softmax attention and linear attention in WGSL, on any [wgpu] device (Vulkan, Metal,
//! DX12), checked against an f64 oracle.
//!
//! ```no_run
//! use wgpu_attention::{Attention, Context, Mask, Tensor};
//!
//! let ctx = pollster::block_on(Context::request())?; // or Context::new(&device, &queue) inside your app
//! let q = Tensor::from_slice(&ctx, [1, 8, 1024, 64], &vec![0.1f32; 8 * 1024 * 64])?;
//! let k = Tensor::from_slice(&ctx, [1, 2, 1024, 64], &vec![0.2f32; 2 * 1024 * 64])?;
//! let v = Tensor::from_slice(&ctx, [1, 2, 1024, 64], &vec![0.3f32; 2 * 1024 * 64])?;
//!
//! let out = Attention::new(&q, &k, &v).mask(Mask::causal()).run(&ctx)?;
//! let host: Vec<f32> = pollster::block_on(out.read(&ctx))?;
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! Data flows one way: a description ([`Attention`], [`LinearAttention`], [`Merge`], a layer) is checked and compiled into a [`Plan`], once a
//! shape; the plan records dispatches into *your* command encoder or compute pass, as often as you like. What cannot be is refused in a sentence
//! ([`Error`]): a description when it is planned, a call's tensors before anything of it is recorded. A plan prints what will run and why not
//! faster.
//!
//! Tensors are `[batch, heads, len, dim]` with any strides ([`Layout`]); a [`Mask`] says which query sees which key, a
//! [`Score`] changes scores before the softmax, [`patterns`] are masks of the literature. [`LinearAttention`] has a state instead of scores; around
//! it stand [`HeadNorm`], [`Lrpe`], [`KdaGate`] and [`ShortConv`], beside it [`AssociativeMemory`], [`KeyGateAttention`] and [`S4d`].
//! [`mod@reference`] holds what is true: obvious f64 implementations, and
//! the rule by which kernels are judged.
#![warn(missing_docs)]

mod attention;
pub mod balance;
mod checks;
mod error;
mod gpu;
mod layers;
mod linear;
mod mask;
mod merge;
pub mod patterns;
mod permute;
pub mod reference;
pub mod refrag;
pub mod regression;
pub mod resample;
mod s4d;
mod score;
mod user_wgsl;

pub use attention::{Attention, AttentionIo, Task, Visit, Weights};
pub use error::{Error, Result};
pub use gpu::capabilities::Capabilities;
pub use gpu::context::Context;
pub use gpu::layout::{DType, Element, Layout};
pub use gpu::matrices::{FragmentLayout, Fragments, Matrices};
pub use gpu::plan::{Io, Plan};
#[doc(hidden)]
pub use gpu::shaders;
pub use gpu::tensor::{Input, Tensor};
pub use gpu::tuning::{Products, Tile};
pub use layers::{
    Activation, HeadNorm, HeadNormIo, KdaGate, KdaGateIo, KeyGateAttention, KeyGateIo, Lrpe, LrpeIo, ShortConv,
    ShortConvIo,
};
pub use linear::{
    AssociativeMemory, Decay, DeltaChunks, FeatureMap, LinearAttention, LinearChunks, LinearGradients,
    LinearGradientsIo, LinearIo, LinearOutput, MemoryIo, MemoryRule, Normalizer,
};
pub use mask::{
    BlockMask, HostMask, Mask, Neighborhood, Order, RadialModel, Simulation, TileClass, pack_bits, simulate,
};
pub use merge::{Merge, MergeIo};
pub use permute::{Permute, PermuteIo, inverse_order};
pub use s4d::{Discretization, S4d, S4dInit, S4dIo, S4dParams};
pub use score::{Relative, Score};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeDoctests;
