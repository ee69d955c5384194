//! Which way attention is computed. Golden problems are so small that the library would take the same one for nearly all of them.

use clap::ValueEnum;
use wgpu_attention::{Capabilities, Context, DType, Fragments, Products, Tile};

/// A way, by what the device is taken to have, by a tile, and by the type of operands.
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
    /// f16, the rest as the library chooses.
    F16,
    /// f16, staged in workgroup memory.
    F16Staged,
    /// f16 on matrix units, in registers where it is known how blocks lie there.
    F16Matrices,
    /// f16 on matrix units, by way of workgroup memory.
    F16MatricesMemory,
}

/// A tile of GPUs, small enough for problems of a few tiles.
const STAGED: Tile = Tile {
    block_q: 32,
    block_kv: 32,
    lanes: 8,
    threads: 64,
    slice_qk: 16,
    slice_v: 8,
    q_resident: false,
    products: Products::Staged,
    v_parts: 1,
};

impl Path {
    /// The context, restricted to it.
    pub fn restrict(self, ctx: &Context) -> Result<Context, String> {
        let found = ctx.capabilities().clone();
        ctx.restricted(match self {
            Path::NoSubgroups => found.without_subgroups(),
            // Of linear attention, too, which has no tile that could be asked for.
            Path::Staged | Path::Streamed | Path::F16Staged => found.without_matrices(),
            Path::F16MatricesMemory => found.without_matrix_registers(),
            _ => found,
        })
        .map_err(|e| e.to_string())
    }

    /// The type of operands.
    pub fn dtype(self) -> DType {
        match self {
            Path::F16 | Path::F16Staged | Path::F16Matrices | Path::F16MatricesMemory => DType::F16,
            Path::Chosen | Path::NoSubgroups | Path::Staged | Path::Streamed | Path::Matrices => DType::F32,
        }
    }

    /// The tile of all softmax attention, where it is not chosen.
    pub fn tile(self, capabilities: &Capabilities) -> Result<Option<Tile>, String> {
        Ok(Some(match self {
            Path::Chosen | Path::NoSubgroups | Path::F16 => return Ok(None),
            Path::Staged | Path::F16Staged => STAGED,
            Path::Streamed => {
                // Threads that read a key together are of one subgroup.
                let together = capabilities.subgroup_min_size.unwrap_or(1).min(4);
                Tile { block_q: 4, threads: 8, slice_qk: 4, slice_v: 4, products: Products::Stream(together), ..STAGED }
            }
            Path::Matrices | Path::F16Matrices | Path::F16MatricesMemory => {
                let matrices = capabilities.matrices.ok_or("--path: the device has no matrix units")?;
                if self == Path::Matrices && !matches!(matrices.fragments, Fragments::Registers(_)) {
                    return Err("--path matrices: is not known how blocks lie in the device's registers".into());
                }
                matrices.tile(2, 1, 32)
            }
        }))
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
        assert_eq!((tile(Path::Chosen), tile(Path::NoSubgroups), tile(Path::F16)), (Ok(None), Ok(None), Ok(None)));
        assert_eq!(
            (tile(Path::Staged), tile(Path::F16Staged)),
            (Ok(Some(Products::Staged)), Ok(Some(Products::Staged)))
        );
        assert!(matches!(tile(Path::Streamed), Ok(Some(Products::Stream(_)))));
        let none = Path::F16Matrices.tile(&found.capabilities().clone().without_matrices());
        assert_eq!(none.unwrap_err(), "--path: the device has no matrix units");
    }
}
