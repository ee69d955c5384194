//! What is true: obvious, unhurried implementations to check kernels against.
//!
//! They materialise the whole score matrix, or take token after token, know neither tiles, chunks nor online softmax, and run in
//! f64. The same text in f32 is the "plain formula" of the tolerance rule: a kernel may err at most twice as much as it does.

mod features;
mod linear;
mod linear_backward;
mod merge;
mod softmax;
mod tolerance;

pub use features::{FeatureRules, features};
pub use linear::{LinearResult, LinearRules, LinearSizes, linear_attention, linear_read};
pub use linear_backward::{LinearBackwardResult, linear_attention_backward};
pub use merge::merge;
pub use softmax::{MaskRule, Rules, ScoreRule, Sizes, softmax_attention};
pub use tolerance::{allowed, check, round_to};

use std::ops::{Add, Div, Mul, Sub};

/// The two types the references run in.
pub trait Real:
    Copy
    + 'static
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + sealed::Sealed
{
    /// The nearest value.
    fn of(x: f64) -> Self;
    /// The value in f64.
    fn to_f64(self) -> f64;
    /// e to the power of the value.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The sine.
    fn sin(self) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn exp(self) -> f64 {
        self.exp()
    }

    fn ln(self) -> f64 {
        self.ln()
    }

    fn tanh(self) -> f64 {
        self.tanh()
    }

    fn sqrt(self) -> f64 {
        self.sqrt()
    }

    fn sin(self) -> f64 {
        self.sin()
    }
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }

    fn to_f64(self) -> f64 {
        self.into()
    }

    fn exp(self) -> f32 {
        self.exp()
    }

    fn ln(self) -> f32 {
        self.ln()
    }

    fn tanh(self) -> f32 {
        self.tanh()
    }

    fn sqrt(self) -> f32 {
        self.sqrt()
    }

    fn sin(self) -> f32 {
        self.sin()
    }
}
