//! How a problem is shared out among workgroups: how many there are, in which order they work, and whether each has one piece of work
//! or takes piece after piece.

use super::check::Problem;
use super::lower::Part;
use super::visit::Visiting;
use crate::Result;
use crate::gpu::attention_spec::Visitor;
use crate::gpu::context::Context;
use crate::gpu::plan::fold_grid;
use crate::gpu::splits::{heads_abreast, tour_teams};
use crate::gpu::tuning::Products;

/// Pieces of work: a query tile, or one of the parts of its keys, of a head or of heads that share it.
pub(super) fn workgroups(p: &Problem, v: &Visiting, part: &Part) -> u64 {
    [v.tiles[0], p.parts(), part.heads.len() / v.pack, part.batches.len()].iter().map(|&n| n as u64).product()
}

/// Heads whose query tiles are visited side by side: more than one under a causal mask, where query tiles differ in cost.
pub(super) fn abreast(p: &Problem, v: &Visiting, part: &Part, ctx: &Context) -> usize {
    let causal = v.visitor == Visitor::Window && !v.tasks && v.window[0].is_none() && v.window[1].is_some();
    let heads = part.heads.len() / v.pack;
    if causal { heads_abreast(&p.tile, heads, v.tiles[0], ctx.capabilities().parallel_threads) } else { 1 }
}

/// Workgroups that take query tile after query tile, if that is worth it.
fn teams(p: &Problem, v: &Visiting, part: &Part, ctx: &Context) -> Option<u32> {
    let Products::Matrices(matrices) = p.tile.products else { return None };
    let dims = [p.q.shape()[3] as u32, p.v.shape()[3] as u32];
    // A tour loads a tile of keys whatever a query tile visits, and sequences of a packed problem may have none.
    let has_keys = !v.tasks && p.k.shape()[2] > 0;
    let suited = has_keys && matrices.suits_tours(&p.tile, dims, p.q.dtype());
    let multiprocessors = ctx.capabilities().multiprocessors;
    suited.then(|| tour_teams(&p.tile, workgroups(p, v, part), multiprocessors)).flatten()
}

pub(super) fn tours(p: &Problem, v: &Visiting, parts: &[Part], ctx: &Context) -> bool {
    parts.iter().all(|part| teams(p, v, part, ctx).is_some())
}

/// Workgroups that are started.
pub(super) fn started(p: &Problem, v: &Visiting, part: &Part, tours: bool, ctx: &Context) -> u64 {
    let teams = tours.then(|| teams(p, v, part, ctx)).flatten();
    teams.map_or(workgroups(p, v, part), u64::from)
}

pub(super) fn grid(p: &Problem, v: &Visiting, part: &Part, tours: bool, ctx: &Context) -> Result<[u32; 2]> {
    fold_grid(started(p, v, part, tours, ctx), ctx.capabilities().workgroups_per_dimension)
}
