//! What kernels of linear attention are specialised for: a file, its sizes, and the formulas it computes.

use super::link::{Assembled, assemble, fragment};
use super::matrices::Matrices;

/// One kernel of linear attention.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LinearSpec {
    /// What it computes, for the reader of a plan.
    pub title: &'static str,
    /// The shader file, and those that it requires.
    pub files: Vec<&'static str>,
    pub constants: Vec<(&'static str, u32)>,
    /// Operands and formulas, generated.
    pub text: String,
    pub f16: bool,
    pub threads: u32,
    /// Bindings over which tensors larger than one are spread.
    pub windows: u32,
    /// The matrix units it runs on, if it does.
    pub matrices: Option<Matrices>,
}

impl LinearSpec {
    pub(super) fn assemble(&self) -> Assembled {
        let mut constants = self.constants.clone();
        constants.extend([("THREADS", self.threads), ("WINDOWS", self.windows)]);
        let mut files = vec![fragment("lib/view.wgsl"), fragment("linear/chunk.wgsl")];
        let mut prelude = match self.matrices {
            Some(matrices) => {
                constants.extend(matrices.block_constants());
                files.push(fragment("lib/coop_lanes.wgsl"));
                matrices.prelude()
            }
            None => String::from(if self.f16 { "enable f16;\n" } else { "" }),
        };
        for (name, value) in &constants {
            prelude += &format!("const {name}: u32 = {value}u;\n");
        }
        files.extend(self.files.iter().map(|file| fragment(file)));
        files.push(super::link::Source::generated("formulas", self.text.clone()));
        assemble(&prelude, &constants, &files)
    }
}

impl std::fmt::Display for LinearSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.files[0].trim_start_matches("linear/").trim_end_matches(".wgsl");
        write!(f, "linear {name}: {}", self.title)?;
        // The first four say it all of a kernel on matrix units; others follow from them.
        let shown = if self.matrices.is_some() { 4 } else { self.constants.len() };
        for (constant, value) in &self.constants[..shown] {
            write!(f, ", {constant} {value}")?;
        }
        write!(f, ", {} threads", self.threads)?;
        if self.windows > 1 { write!(f, ", tensors in {} bindings each", self.windows) } else { Ok(()) }
    }
}
