//! Several sequences in one row, or several pieces of work: queries of a task see the keys of it.

use std::ops::Range;

use crate::{Error, Result};

/// Queries that see keys, by their rows in q and in k and v.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Rows of q, and of out.
    pub q: Range<usize>,
    /// Rows of k and v.
    pub kv: Range<usize>,
}

/// Sequences end to end, as tasks.
pub(super) fn packed(lens: [usize; 2], cu_seqlens_q: &[usize], cu_seqlens_kv: &[usize]) -> Result<Vec<Task>> {
    let both = [("cu_seqlens_q", cu_seqlens_q, lens[0]), ("cu_seqlens_kv", cu_seqlens_kv, lens[1])];
    for (name, cu_seqlens, len) in both {
        sequences(name, cu_seqlens, len)?;
    }
    if cu_seqlens_q.len() != cu_seqlens_kv.len() {
        return Err(Error::Value(format!(
            "cu_seqlens_kv: has {} values, but must have as many as cu_seqlens_q ({})",
            cu_seqlens_kv.len(),
            cu_seqlens_q.len()
        )));
    }
    let ranges = |cu_seqlens: &[usize]| cu_seqlens.windows(2).map(|pair| pair[0]..pair[1]).collect::<Vec<_>>();
    Ok(ranges(cu_seqlens_q).into_iter().zip(ranges(cu_seqlens_kv)).map(|(q, kv)| Task { q, kv }).collect())
}

/// Where sequences that lie end to end begin, and where the last ends.
pub(crate) fn sequences(name: &str, cu_seqlens: &[usize], len: usize) -> Result<()> {
    match cu_seqlens.first() {
        Some(0) => {}
        Some(first) => return Err(Error::Value(format!("{name}: begins with {first}, but must begin with 0"))),
        None => return Err(Error::Value(format!("{name}: is empty, but must begin with 0"))),
    }
    if let Some(n) = cu_seqlens.windows(2).position(|pair| pair[0] > pair[1]) {
        let (a, b) = (cu_seqlens[n], cu_seqlens[n + 1]);
        return Err(Error::Value(format!("{name}: {a} is followed by {b}, but must not decrease")));
    }
    match cu_seqlens.last().filter(|&&last| last != len) {
        Some(last) => Err(Error::Value(format!("{name}: ends with {last}, but there are {len} rows"))),
        None => Ok(()),
    }
}

/// First row within the task, the task's first rows in q and in k, its lengths (`lib/place_tasks.wgsl`): one place a tile,
/// those with the most keys first.
pub(super) fn places(tasks: &[Task], pack: usize, block_q: usize) -> Vec<[u32; 5]> {
    let mut places = Vec::new();
    for Task { q, kv } in tasks {
        for row in (0..q.len() * pack).step_by(block_q) {
            places.push([row, q.start, kv.start, q.len(), kv.len()].map(|n| n as u32));
        }
    }
    // Under a causal mask the last rows of a task cost most.
    places.sort_by_key(|&[row, _, _, _, len_kv]| std::cmp::Reverse((len_kv, row)));
    places
}

pub(super) fn check_tasks(tasks: &[Task], shape: [usize; 4]) -> Result<()> {
    let [_, _, len_q, len_kv] = shape;
    for (n, task) in tasks.iter().enumerate() {
        for (name, range, len) in [("q", &task.q, len_q), ("kv", &task.kv, len_kv)] {
            if range.start > range.end || range.end > len {
                return Err(Error::Value(format!("task {n}: {name} is rows {range:?}, but {name} has {len} rows")));
            }
        }
    }
    let mut rows: Vec<&Range<usize>> = tasks.iter().map(|task| &task.q).filter(|q| !q.is_empty()).collect();
    rows.sort_by_key(|q| q.start);
    match rows.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(Error::Value(format!(
            "tasks: queries {:?} and {:?} overlap, but a row of out is written once; merge shards of keys with Merge",
            pair[0], pair[1]
        ))),
        None => Ok(()),
    }
}
