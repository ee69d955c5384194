//! What kernels without tiles are specialised for.

use super::layout::DType;
use super::link::{Source, fragment};
use super::spec::FLAT_THREADS;

/// The merge by log-sum-exp.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CombineSpec {
    pub parts_dtype: DType,
    pub out_dtype: DType,
    /// Whether f16 is written as pairs in words, because shaders have no 16-bit floats; parts are f32 then.
    pub pairs: bool,
    pub lse: bool,
    pub mass: bool,
}

/// Rows of f32 as two f16.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HalvesSpec {
    pub dim: u32,
    /// Columns that a row of halves has: whole blocks.
    pub padded: u32,
    /// Threads of a subgroup, of which a power of two share a row.
    pub subgroup: u32,
    pub vec4: bool,
}

/// Tokens in another order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PermuteSpec {
    pub dtype: DType,
    pub vec4: bool,
}

impl CombineSpec {
    pub(super) fn prelude(&self) -> String {
        let f16 = self.parts_dtype == DType::F16 || self.out_dtype == DType::F16;
        let mut text = String::from(if f16 && !self.pairs { "enable f16;\n" } else { "" });
        text += &format!("alias elem = {};\n", self.parts_dtype);
        if !self.pairs {
            text += &format!("alias out_elem = {};\n", self.out_dtype);
        }
        text + &format!("const THREADS: u32 = {FLAT_THREADS}u;\nconst WIDTH: u32 = {}u;\n", self.width())
    }

    /// Columns a thread.
    pub(crate) fn width(&self) -> u32 {
        if self.pairs { 2 } else { 1 }
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        let mass = if self.mass { "lib/mass_store.wgsl" } else { "lib/mass_none.wgsl" };
        let lse = if self.lse { "lib/merged_lse_store.wgsl" } else { "lib/merged_lse_none.wgsl" };
        let mut files = vec!["lib/view.wgsl", lse, mass, "combine.wgsl"];
        files.extend(if self.pairs {
            ["lib/merged_out_pairs.wgsl", "lib/pack_pairs.wgsl"].as_slice()
        } else {
            &["lib/merged_out_one.wgsl"]
        });
        files.into_iter().map(fragment).collect()
    }
}

impl HalvesSpec {
    /// Threads of a workgroup.
    pub(crate) const THREADS: u32 = 128;

    fn lanes(&self) -> u32 {
        self.subgroup.min((self.padded / 4).next_power_of_two())
    }

    /// Rows of a workgroup.
    pub(crate) fn rows(&self) -> u32 {
        Self::THREADS / self.lanes()
    }

    pub(super) fn constants(&self) -> Vec<(&'static str, u32)> {
        let row4 = self.padded / 4;
        vec![
            ("THREADS", Self::THREADS),
            ("LANES", self.lanes()),
            ("LANE_STEPS", self.lanes().trailing_zeros()),
            ("PIECES", row4.div_ceil(self.lanes())),
            ("DIM", self.dim),
            ("COLS4", self.dim.div_ceil(4)),
            ("ROW4", row4),
        ]
    }

    pub(super) fn prelude(&self) -> String {
        let numbers = self.constants().into_iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n"));
        format!("enable f16;\n{}", numbers.collect::<String>())
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        let read = if self.vec4 { "lib/halves_vec4.wgsl" } else { "lib/halves_scalar.wgsl" };
        ["lib/view.wgsl", "lib/eleven_bits.wgsl", read, "halves.wgsl"].map(fragment).into()
    }
}

impl PermuteSpec {
    pub(super) fn prelude(&self) -> String {
        let f16 = if self.dtype == DType::F16 { "enable f16;\n" } else { "" };
        let unit = if self.vec4 { format!("vec4<{}>", self.dtype) } else { self.dtype.to_string() };
        format!("{f16}alias unit = {unit};\nconst THREADS: u32 = {FLAT_THREADS}u;\n")
    }
}
