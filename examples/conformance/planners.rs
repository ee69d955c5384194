//! Operators that run on the host: simulators, planners and layouts.

use wgpu_attention::balance::{self, Widths};
use wgpu_attention::refrag::{self, Slot, Workload};
use wgpu_attention::resample::reposition;
use wgpu_attention::{Context, Neighborhood, simulate};

use crate::case::Case;
use crate::operators::{Output, Stop};

/// A parameter that the operator cannot do without.
fn needed<T>(key: &str, value: Option<T>) -> Result<T, Stop> {
    value.ok_or_else(|| Stop::Failed(format!("{key}: is not among the parameters, but the operator needs it")))
}

fn lengths(case: &Case, key: &str) -> Result<Vec<usize>, Stop> {
    needed(key, case.params.shape(key)?)
}

fn count(case: &Case, key: &str) -> Result<usize, Stop> {
    needed(key, case.params.count(key)?)
}

fn number(case: &Case, key: &str) -> Result<f64, Stop> {
    needed(key, case.params.number_f64(key)?)
}

fn float(name: &'static str, value: f64) -> Output {
    Output::new(name, [1], vec![value as f32])
}

fn integer(name: &'static str, value: usize) -> Output {
    Output::integers(name, [1], vec![value as i64])
}

/// Tiles that a neighborhood visits, and what that promises.
pub fn gna_simulator(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let mut neighborhood = Neighborhood::new(lengths(case, "window")?);
    if let Some(stride) = case.params.shape("stride")? {
        neighborhood = neighborhood.stride(stride);
    }
    if let Some(dilation) = case.params.shape("dilation")? {
        neighborhood = neighborhood.dilation(dilation);
    }
    if let Some(causal) = case.params.flags("causal")? {
        neighborhood = neighborhood.causal(causal);
    }
    let [grid, q_tile, kv_tile] = [lengths(case, "shape")?, lengths(case, "q_tile")?, lengths(case, "kv_tile")?];
    let simulation = simulate(&grid, &neighborhood, &q_tile, &kv_tile)?;
    let trips = |name, trips: &[usize]| {
        Output::integers(name, [trips.len()], trips.iter().map(|&trips| trips as i64).collect())
    };
    Ok(vec![
        trips("trips_static", &simulation.trips_static),
        trips("trips_dynamic", &simulation.trips_dynamic),
        integer("total_kv_tiles", simulation.total_kv_tiles),
        integer("fully_block_sparse", simulation.fully_block_sparse.into()),
        float("attended_pairs", simulation.attended_pairs),
        float("speedup_flop", simulation.speedup_flop),
        float("speedup_static", simulation.speedup_static),
        float("speedup_dynamic", simulation.speedup_dynamic),
    ])
}

/// Core attention tasks, one a row.
pub fn cad_planner(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    const COLUMNS: [&str; 5] = ["doc", "src_rank", "dst_rank", "q_len", "kv_len"];
    if let Some(columns) = case.params.texts("columns")?.filter(|columns| columns != &COLUMNS) {
        return Err(Stop::NotOffered(format!("columns: are {columns:?}, but only {COLUMNS:?} are offered")));
    }
    let widths =
        Widths { hidden: count(case, "hidden")?, heads: count(case, "heads")?, kv_heads: count(case, "kv_heads")? };
    let docs_per_rank = needed("docs_per_rank", case.params.shapes("docs_per_rank")?)?;
    let balance = balance::plan(&docs_per_rank, widths, number(case, "tolerance")?)?;
    let row = |placed: &balance::Placed| {
        let task = placed.task;
        [task.doc, placed.src_rank, placed.dst_rank, task.q_len, task.kv_len].map(|value| value as i64)
    };
    let loads = |name, loads: &[f64]| Output::new(name, [loads.len()], loads.iter().map(|&x| x as f32).collect());
    Ok(vec![
        Output::integers("tasks", [balance.tasks.len(), 5], balance.tasks.iter().flat_map(row).collect()),
        loads("load_before", &balance.load_before),
        loads("load_after", &balance.load_after),
    ])
}

/// The decoder's input with most of its context compressed; -1 stands where a slot has no such number.
pub fn refrag_layout(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let input = refrag::layout(
        count(case, "context_tokens")?,
        count(case, "chunk")?,
        count(case, "query_tokens")?,
        case.floats("chunk_logits")?,
        number(case, "expand_fraction")?,
    )?;
    let parts = |slot: &Slot| match *slot {
        Slot::Chunk(chunk) => [chunk as i64, 0, -1],
        Slot::Token { chunk, token } => [chunk as i64, 1, token as i64],
        Slot::Query(token) => [-1, 2, token as i64],
    };
    let slots: Vec<[i64; 3]> = input.slots.iter().map(parts).collect();
    let column = |name, n: usize| Output::integers(name, [slots.len()], slots.iter().map(|slot| slot[n]).collect());
    let expanded = input.expanded.iter().map(|&chunk| chunk as i64).collect();
    Ok(vec![
        column("chunk", 0),
        column("kind", 1),
        column("token", 2),
        Output::integers("position_ids", [slots.len()], (0..slots.len() as i64).collect()),
        Output::integers("expanded", [input.expanded.len()], expanded),
        integer("decoder_len", slots.len()),
        float("effective_rate", input.effective_rate),
    ])
}

/// What compressing the context saves.
pub fn refrag_cost_model(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let savings = refrag::cost_model(&Workload {
        hidden: count(case, "hidden")?,
        layers: count(case, "layers")?,
        params: number(case, "params")?,
        batch: count(case, "batch")?,
        context: count(case, "context")?,
        output: count(case, "output")?,
        rate: count(case, "rate")?,
        expand_fraction: case.params.number_f64("expand_fraction")?.unwrap_or(0.0),
    })?;
    Ok(vec![
        float("kv_ratio", savings.kv_ratio),
        float("ttft_ratio", savings.ttft_ratio),
        float("ttit_ratio", savings.ttit_ratio),
    ])
}

/// Features of a reference subject, moved to the target's place.
pub fn reposition_resample(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("mode", "nearest")?;
    case.params.only("index", "src = floor(dst*src_len/dst_len)")?;
    let grid = [count(case, "height")?, count(case, "width")?];
    let shows = |name| -> Result<Vec<bool>, Stop> { Ok(case.integers(name)?.iter().map(|&x| x != 0).collect()) };
    let (ref_mask, target_mask) = (shows("ref_mask")?, shows("target_mask")?);
    let (x, mask) = reposition(case.floats("x")?, grid, &ref_mask, &target_mask)?;
    Ok(vec![
        Output::new("x", case.dims::<2>("x")?, x),
        Output::integers("mask", [mask.len()], mask.into_iter().map(i64::from).collect()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::parse;

    #[test]
    fn parameters_that_are_missing_are_named() {
        let file = [("params", r#"{"shape": [8], "count": 3}"#), ("rtol", "0"), ("atol", "0")];
        let case = parse(&[("expected.x", &[1.0])], &file).unwrap();
        assert_eq!((lengths(&case, "shape").unwrap(), count(&case, "count").unwrap()), (vec![8], 3));
        let Err(Stop::Failed(told)) = number(&case, "tolerance") else { panic!("must be refused") };
        assert_eq!(told, "tolerance: is not among the parameters, but the operator needs it");
    }
}
