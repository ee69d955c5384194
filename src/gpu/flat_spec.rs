//! What kernels without tiles are specialised for.

use super::layout::DType;
use super::link::{Source, fragment};
use super::spec::FLAT_THREADS;

/// The merge by log-sum-exp.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CombineSpec {
    pub parts_dtype: DType,
    pub out_dtype: DType,
    pub lse: bool,
    pub mass: bool,
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
        format!(
            "{}alias elem = {};\nalias out_elem = {};\nconst THREADS: u32 = {FLAT_THREADS}u;\n",
            if f16 { "enable f16;\n" } else { "" },
            self.parts_dtype,
            self.out_dtype
        )
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        let mass = if self.mass { "lib/mass_store.wgsl" } else { "lib/mass_none.wgsl" };
        let lse = if self.lse { "lib/merged_lse_store.wgsl" } else { "lib/merged_lse_none.wgsl" };
        vec![fragment("lib/view.wgsl"), fragment(lse), fragment(mass), fragment("combine.wgsl")]
    }
}

impl PermuteSpec {
    pub(super) fn prelude(&self) -> String {
        let f16 = if self.dtype == DType::F16 { "enable f16;\n" } else { "" };
        let unit = if self.vec4 { format!("vec4<{}>", self.dtype) } else { self.dtype.to_string() };
        format!("{f16}alias unit = {unit};\nconst THREADS: u32 = {FLAT_THREADS}u;\n")
    }
}
