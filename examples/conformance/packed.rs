//! Sequences end to end, and tasks of core attention.

use wgpu_attention::balance::CoreTask;
use wgpu_attention::{Attention, Context, Mask};

use crate::attend::outputs;
use crate::case::Case;
use crate::operators::{Output, Stop, read};
use crate::softmax::scaled;

fn ends(case: &Case, name: &str) -> Result<Vec<usize>, Stop> {
    let ends = case.integers(name)?.iter().map(|&end| usize::try_from(end).ok()).collect::<Option<Vec<_>>>();
    ends.ok_or_else(|| Stop::Failed(format!("{name}: has a negative value")))
}

fn causal(case: &Case) -> Result<Mask, Stop> {
    case.params.only("causal_align", "bottom_right per segment")?;
    Ok(if case.params.flag("causal")?.unwrap_or(false) { Mask::causal() } else { Mask::all() })
}

/// One dispatch over all sequences.
pub fn varlen_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let (cu_q, cu_kv) = (ends(case, "cu_seqlens_q")?, ends(case, "cu_seqlens_k")?);
    let attention = scaled(Attention::new(&q, &k, &v), case)?.mask(causal(case)?).packed(&cu_q, &cu_kv);
    outputs(ctx, &attention.run_with_lse(ctx)?)
}

/// One dispatch over all tasks, written in place; `task_*` are the same rows in the order of the table.
pub fn core_attention_tasks(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    if case.params.texts("task_columns")?.is_some_and(|columns| columns != ["doc", "q_start", "q_len", "kv_len"]) {
        return Err(Stop::NotOffered("task_columns: are in another order than is offered".into()));
    }
    let docs = ends(case, "cu_seqlens")?;
    let table = ends(case, "tasks")?;
    let tasks: Vec<CoreTask> = table
        .as_chunks()
        .0
        .iter()
        .map(|&[doc, q_start, q_len, kv_len]| CoreTask { doc, q_start, q_len, kv_len })
        .collect();
    let start = |task: &CoreTask| docs.get(task.doc).copied();
    let Some(starts) = tasks.iter().map(start).collect::<Option<Vec<_>>>() else {
        return Err(Stop::Failed("tasks: name a document that is not in cu_seqlens".into()));
    };
    let rows: Vec<_> = tasks.iter().zip(&starts).map(|(task, &start)| task.rows(start)).collect();
    let attention = scaled(Attention::new(&q, &k, &v), case)?.mask(causal(case)?).tasks(&rows);
    let (out, lse) = attention.run_with_lse(ctx)?;
    let order: Vec<usize> = rows.iter().flat_map(|task| task.q.clone()).collect();
    let gather = |values: &[f32], dim: usize| -> Vec<f32> {
        let [_, _, len, _] = out.shape();
        let heads = values.chunks(len * dim);
        heads.flat_map(|head| order.iter().flat_map(|&row| head[row * dim..][..dim].to_vec())).collect()
    };
    let [batch, heads, _, dim] = out.shape();
    let mut all = outputs(ctx, &(out.clone(), lse.clone()))?;
    all.push(Output::new("task_out", [batch, heads, order.len(), dim], gather(&read(ctx, &out)?, dim)));
    all.push(Output::new("task_lse", [batch, heads, order.len()], gather(&read(ctx, &lse)?, 1)));
    let costs = tasks.iter().map(|task| task.cost() as i64).collect();
    all.push(Output::integers("task_cost", [tasks.len()], costs));
    Ok(all)
}
