//! Which way softmax attention is computed. Golden problems are so small that the library would take the same one for nearly all of them.

use clap::ValueEnum;
use wgpu_attention::{Capabilities, Context, Fragments, Products, Tile};

/// A way, by what the device is taken to have and by a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// What the library chooses.
    Chosen,
    /// Rows reduced through workgroup memory.
    NoSubgroups,
    /// Operands staged in workgroup memory, as GPUs multiply them.
    Staged,
    /// Operands straight from memory, as in decoding.
    Streamed,
    /// f32 as two f16 on matrix units.
    Matrices,
}

impl Path {
    /// The context, restricted to it.
    pub fn restrict(self, ctx: &Context) -> Result<Context, String> {
        let found = ctx.capabilities().clone();
        let capabilities = if self == Path::NoSubgroups { found.without_subgroups() } else { found };
        ctx.restricted(capabilities).map_err(|e| e.to_string())
    }

    /// The tile of all softmax attention, where it is not chosen.
    pub fn tile(self, capabilities: &Capabilities) -> Result<Option<Tile>, String> {
        let tile = |[block_q, block_kv, lanes, threads]: [u32; 4], [slice_qk, slice_v]: [u32; 2], products| Tile {
            block_q,
            block_kv,
            lanes,
            threads,
            slice_qk,
            slice_v,
            q_resident: false,
            products,
            v_parts: 1,
        };
        Ok(match self {
            Path::Chosen | Path::NoSubgroups => None,
            Path::Staged => Some(tile([32, 32, 8, 64], [16, 8], Products::Staged)),
            Path::Streamed => {
                // Threads that read a key together are of one subgroup.
                let together = capabilities.subgroup_min_size.unwrap_or(1).min(4);
                Some(tile([4, 32, 8, 8], [4, 4], Products::Stream(together)))
            }
            Path::Matrices => match capabilities.matrices {
                Some(matrices) if matches!(matrices.fragments, Fragments::Registers(_)) => {
                    Some(matrices.tile(2, 1, 32))
                }
                _ => return Err("--path matrices: the device has no matrix units whose blocks lie in registers".into()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_what_they_are_called() {
        let found = pollster::block_on(Context::request()).expect("tests need a driver");
        let without = Path::NoSubgroups.restrict(&found).unwrap();
        assert_eq!(without.capabilities().subgroup_min_size, None);
        let tile = |path: Path| path.tile(found.capabilities()).map(|tile| tile.map(|tile| tile.products));
        assert_eq!((tile(Path::Chosen), tile(Path::NoSubgroups)), (Ok(None), Ok(None)));
        assert_eq!(tile(Path::Staged), Ok(Some(Products::Staged)));
        assert!(matches!(tile(Path::Streamed), Ok(Some(Products::Stream(_)))));
        let none = Path::Matrices.tile(&found.capabilities().clone().without_matrices());
        assert_eq!(none.unwrap_err(), "--path matrices: the device has no matrix units whose blocks lie in registers");
    }
}
