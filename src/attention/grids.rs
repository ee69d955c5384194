//! How a problem is shared out among workgroups: how many there are, in which order they work, and whether each has one piece of work
//! or takes piece after piece.

use super::check::Problem;
use super::parts::Part;
use super::visit::Visiting;
use crate::Result;
use crate::gpu::attention_spec::{AttentionSpec, Visitor};
use crate::gpu::context::Context;
use crate::gpu::splits::{heads_abreast, redo_teams, tour_teams};
use crate::gpu::tuning::Products;
use crate::gpu::window::fold_grid;

/// How the pieces of work of a part are shared out: a piece is a query tile, or one of the parts of its keys, of a head or of heads that
/// share it.
pub(super) struct Share {
    pub workgroups: u32,
    /// Workgroups that are started; fewer than pieces where each takes several.
    pub teams: u32,
    pub grid: [u32; 2],
    /// Heads whose query tiles are visited side by side.
    pub abreast: u32,
}

impl Share {
    /// A piece a workgroup, head after head.
    pub(super) fn one_each(workgroups: u64, ctx: &Context) -> Result<Share> {
        let grid = fold_grid(workgroups, ctx.capabilities().workgroups_per_dimension)?;
        Ok(Share { workgroups: workgroups as u32, teams: workgroups as u32, grid, abreast: 1 })
    }

    /// The same pieces, most of which take no more than a look.
    pub(super) fn of_few(&self, ctx: &Context) -> Result<Share> {
        let teams = redo_teams(self.workgroups, ctx.capabilities());
        let share = Share::one_each(teams.into(), ctx)?;
        Ok(Share { workgroups: self.workgroups, abreast: self.abreast, ..share })
    }

    fn of(p: &Problem, v: &Visiting, part: &Part, teams: Option<u32>, ctx: &Context) -> Result<Share> {
        let workgroups = pieces(p, v, part);
        let share = Share::one_each(teams.map_or(workgroups, u64::from), ctx)?;
        Ok(Share { workgroups: workgroups as u32, abreast: abreast(p, v, part, ctx) as u32, ..share })
    }
}

/// A share a part, and whether workgroups take piece after piece: all parts run one kernel.
pub(super) fn share_out(p: &Problem, v: &Visiting, parts: &[Part], ctx: &Context) -> Result<(Vec<Share>, bool)> {
    let teams: Option<Vec<u32>> = parts.iter().map(|part| teams(p, v, part, ctx)).collect();
    let share = |(n, part)| Share::of(p, v, part, teams.as_ref().map(|teams| teams[n]), ctx);
    Ok((parts.iter().enumerate().map(share).collect::<Result<_>>()?, teams.is_some()))
}

fn pieces(p: &Problem, v: &Visiting, part: &Part) -> u64 {
    [v.tiles[0], p.parts(), part.heads.len() / v.pack, part.batches.len()].iter().map(|&n| n as u64).product()
}

/// More than one under a causal mask, where query tiles differ in cost.
fn abreast(p: &Problem, v: &Visiting, part: &Part, ctx: &Context) -> usize {
    let causal = v.visitor == Visitor::Window && !v.tasks && v.window[0].is_none() && v.window[1].is_some();
    let heads = part.heads.len() / v.pack;
    if causal { heads_abreast(&p.tile, heads, v.tiles[0], ctx.capabilities().parallel_threads) } else { 1 }
}

/// Whether workgroups may take piece after piece.
pub(super) fn suits_tours(p: &Problem, v: &Visiting) -> bool {
    let Products::Matrices(matrices) = p.tile.products else { return false };
    let dims = [p.q.shape()[3] as u32, p.v.shape()[3] as u32];
    // A tour loads a tile of keys whatever a query tile visits, and sequences of a packed problem may have none.
    let has_keys = !v.tasks && p.k.shape()[2] > 0;
    has_keys && matrices.suits_tours(&p.tile, dims, p.q.dtype())
}

/// Workgroups that take piece after piece, if that is worth it.
fn teams(p: &Problem, v: &Visiting, part: &Part, ctx: &Context) -> Option<u32> {
    suits_tours(p, v).then(|| tour_teams(&p.tile, pieces(p, v, part), ctx.capabilities().multiprocessors)).flatten()
}

/// Whether a query tile's list passes through workgroup memory, an entry a thread: in tours of whole tiles, where there is room.
pub(super) fn stages_list(p: &Problem, v: &Visiting, spec: &AttentionSpec, ctx: &Context) -> bool {
    let an_entry_a_thread = v.whole_tiles.is_some_and(|most| most <= p.tile.threads as usize);
    let bytes = AttentionSpec { staged_list: true, ..spec.clone() }.workgroup_bytes();
    // Where a part of the keys begins in a list is known only when it is known how long the list is.
    let listed = v.visitor == Visitor::List && spec.tours && p.split.is_none();
    listed && an_entry_a_thread && bytes <= ctx.capabilities().workgroup_memory
}
