//! What a module is specialised for: the pipeline key. If two callers would pass different floats, it is a uniform
//! (`params.rs`) instead.

use std::fmt;

use super::attention_spec::AttentionSpec;
use super::flat::FlatSpec;
use super::flat_spec::{CombineSpec, HalvesSpec, PermuteSpec};
use super::linear_spec::LinearSpec;
use super::link::{Assembled, Linked, assemble, fragment};
use super::mask_spec::{ListsSpec, UserSpec};
use super::matrices::Fragments;
use super::probe::ProbeSpec;
use super::tuning::{Products, Tile};
use crate::Result;

/// The key of the pipeline cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Spec {
    Attention(AttentionSpec),
    Combine(CombineSpec),
    Lists(ListsSpec),
    Permute(PermuteSpec),
    Halves(HalvesSpec),
    Linear(LinearSpec),
    Flat(FlatSpec),
    Probe(ProbeSpec),
}

/// Threads of a workgroup in kernels without tiles.
pub(crate) const FLAT_THREADS: u32 = 64;

impl Spec {
    /// The module's text.
    pub(crate) fn assemble(&self) -> Assembled {
        match self {
            Spec::Attention(spec) => assemble(&spec.prelude(), &spec.known(), &spec.sources()),
            Spec::Combine(spec) => assemble(&spec.prelude(), &[("WIDTH", spec.width())], &spec.sources()),
            Spec::Probe(spec) => spec.assemble(),
            Spec::Linear(spec) => spec.assemble(),
            Spec::Flat(spec) => spec.assemble(),
            Spec::Lists(spec) => assemble(&spec.prelude(), &[], &spec.sources()),
            Spec::Halves(spec) => assemble(&spec.prelude(), &spec.constants(), &spec.sources()),
            Spec::Permute(spec) => {
                assemble(&spec.prelude(), &[], &[fragment("lib/view.wgsl"), fragment("permute.wgsl")])
            }
        }
    }

    /// The linked module.
    pub(crate) fn link(&self) -> Result<Linked> {
        self.assemble().link()
    }

    /// The user's texts within, if there are any.
    pub(crate) fn user(&self) -> Option<&UserSpec> {
        let user = match self {
            Spec::Attention(spec) => &spec.user,
            Spec::Lists(spec) => &spec.user,
            Spec::Combine(_)
            | Spec::Permute(_)
            | Spec::Halves(_)
            | Spec::Linear(_)
            | Spec::Flat(_)
            | Spec::Probe(_) => return None,
        };
        (!user.texts.is_empty()).then_some(user)
    }

    /// Where threads reach into blocks, which only SPIR-V can say: how many numbers of one each holds.
    pub(crate) fn elements(&self) -> Option<u32> {
        match self {
            Spec::Probe(spec) => Some(spec.elements()),
            Spec::Linear(LinearSpec { matrices: Some(m), .. }) => Some(m.size * m.size / m.subgroup),
            Spec::Attention(AttentionSpec { tile: Tile { products: Products::Matrices(m), .. }, .. })
                if m.fragments != Fragments::Workgroup =>
            {
                Some(m.size * m.size / m.subgroup)
            }
            _ => None,
        }
    }

    /// Whether a binding is not said to be read-only though nobody writes it. Loads of memory that nobody writes move to where they are
    /// used, past every barrier; without that knowledge they stay where they stand, ahead of the work that is to hide them. In other
    /// loops of softmax attention none of the operands gains by it.
    pub(crate) fn pins(&self, binding: &str) -> bool {
        match self {
            Spec::Linear(_) => binding.ends_with("_data"),
            Spec::Attention(spec) => spec.staged_list && binding == "v",
            _ => false,
        }
    }

    /// Whether small functions are put into their callers before the driver sees them: for kernels that compile in two thirds of the time,
    /// and run as before. f32 on matrix units, N 4096 on an H100, 27 November 2026: D 128 0.46 to 0.48 instead of 0.72 s in the same minute,
    /// D 64 0.26 instead of 0.39; in a slower hour D 128 0.91 and 1.0 instead of 0.97 and 1.14. f16 at D 128 saves a tenth under a causal mask, and takes 2 % longer to run: left as it was.
    /// Threads with one row by multiply-adds: 127 instead of 144 ms (medians of 34 in turn). What matrix units leave to multiply-adds, without
    /// text of a user's: as SPIR-V of ours it is not parsed again with a kept cache, 3 instead of 10 ms.
    pub(crate) fn inlines(&self) -> bool {
        let Spec::Attention(spec) = self else { return false };
        let one_row = spec.tile.products == Products::Staged && spec.tile.sizes(spec.head_dim, spec.v_dim).rows == 1;
        spec.in_halves() || ((one_row || spec.redo) && spec.user.texts.is_empty())
    }

    /// Threads of a workgroup.
    pub(crate) fn threads(&self) -> u32 {
        match self {
            Spec::Attention(spec) => spec.tile.threads,
            Spec::Probe(spec) => spec.subgroup,
            Spec::Linear(spec) => spec.threads,
            Spec::Flat(spec) => spec.threads,
            Spec::Halves(_) => HalvesSpec::THREADS,
            _ => FLAT_THREADS,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Attention(spec) => spec.fmt(f),
            Spec::Lists(spec) => spec.fmt(f),
            Spec::Linear(spec) => spec.fmt(f),
            Spec::Flat(spec) => spec.fmt(f),
            Spec::Halves(spec) => {
                let unit = if spec.vec4 { "vec4" } else { "scalar" };
                let (dim, threads) = (spec.dim, HalvesSpec::THREADS);
                write!(f, "f32 as two f16 and a power of two a row, {dim} columns, {unit} loads, {threads} threads")
            }
            Spec::Probe(spec) => write!(f, "probe of {0} x {0} blocks", spec.size),
            Spec::Permute(spec) => {
                let unit = if spec.vec4 { "vec4" } else { "scalar" };
                write!(f, "permute tokens, {}, {unit} loads, {FLAT_THREADS} threads", spec.dtype)
            }
            Spec::Combine(spec) => {
                write!(f, "combine, {} parts to {}, {FLAT_THREADS} threads", spec.parts_dtype, spec.out_dtype)
            }
        }
    }
}

/// A spec of the merge, for tests of the contract.
#[cfg(test)]
pub(crate) fn example_combine_spec() -> Spec {
    use super::layout::DType;
    Spec::Combine(CombineSpec { parts_dtype: DType::F32, out_dtype: DType::F32, pairs: false, lse: true, mass: true })
}
