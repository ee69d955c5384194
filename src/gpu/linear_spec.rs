//! What kernels of linear attention are specialised for: a file, its sizes, and the formulas it computes.

use super::link::{Linked, fragment, link};
use crate::Result;

/// One kernel of linear attention.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LinearSpec {
    /// What it computes, for the reader of a plan.
    pub title: &'static str,
    /// The shader file.
    pub file: &'static str,
    pub constants: Vec<(&'static str, u32)>,
    /// Operands and formulas, generated.
    pub text: String,
    pub f16: bool,
    pub threads: u32,
}

impl LinearSpec {
    pub(super) fn link(&self) -> Result<Linked> {
        let mut prelude = String::from(if self.f16 { "enable f16;\n" } else { "" });
        for (name, value) in &self.constants {
            prelude += &format!("const {name}: u32 = {value}u;\n");
        }
        prelude += &format!("const THREADS: u32 = {}u;\n", self.threads);
        let generated = super::link::Source::generated("formulas", self.text.clone());
        let files = [fragment("lib/view.wgsl"), fragment("linear/chunk.wgsl"), fragment(self.file), generated];
        link(&prelude, &self.constants, &files)
    }
}

impl std::fmt::Display for LinearSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.trim_start_matches("linear/").trim_end_matches(".wgsl");
        write!(f, "linear {name}: {}", self.title)?;
        for (constant, value) in &self.constants {
            write!(f, ", {constant} {value}")?;
        }
        write!(f, ", {} threads", self.threads)
    }
}
