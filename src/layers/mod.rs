//! What stands around linear attention in a layer: norms, positions, gates, short convolutions; each a plan of a stage or two.

mod head_norm;
mod kda_gate;
mod key_gate;
mod lrpe;
mod short_conv;

pub use head_norm::{HeadNorm, HeadNormIo};
pub use kda_gate::{KdaGate, KdaGateIo};
pub use key_gate::{KeyGateAttention, KeyGateIo};
pub use lrpe::{Lrpe, LrpeIo};
pub use short_conv::{ShortConv, ShortConvIo};

/// What a number goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x / (1 + e^-x)`.
    Silu,
}

impl Activation {
    /// `activate` in WGSL.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Activation::None => "fn activate(x: f32) -> f32 {\n    return x;\n}\n",
            Activation::Sigmoid => {
                "fn activate(x: f32) -> f32 {\n    return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0)));\n}\n"
            }
            Activation::Silu => {
                "fn activate(x: f32) -> f32 {\n    return x / (1.0 + exp(clamp(-x, -80.0, 80.0)));\n}\n"
            }
        }
    }
}

/// The tensors of one call, by slot name: those every call has, and those the description may have mentioned.
macro_rules! io {
    ($(#[$about:meta])* $name:ident { $($(#[$new:meta])* $required:ident),* } $($(#[$doc:meta])* $optional:ident)*) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub struct $name<'a> {
            tensors: Vec<(&'static str, &'a crate::Tensor)>,
        }

        impl<'a> $name<'a> {
            /// The operands every call has, in this order; the last is written.
            pub fn new($($required: &'a crate::Tensor),*) -> Self {
                $name { tensors: vec![$((stringify!($required), $required)),*] }
            }

            $(
                $(#[$doc])*
                pub fn $optional(mut self, $optional: &'a crate::Tensor) -> Self {
                    self.tensors.push((stringify!($optional), $optional));
                    self
                }
            )*
        }

        impl crate::gpu::plan::sealed::Sealed for $name<'_> {
            fn tensors(&self) -> Vec<(&str, &crate::Tensor)> {
                self.tensors.iter().map(|(name, tensor)| (*name, *tensor)).collect()
            }
        }

        impl crate::gpu::plan::Io for $name<'_> {}
    };
}
pub(crate) use io;
