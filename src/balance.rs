//! Core attention disaggregation: attention over documents, cut into tasks that any rank can run, and spread evenly.
//!
//! The softmax part of attention has no weights and no state. A [`CoreTask`] is some consecutive queries of one document
//! against all keys up to the last of them; tasks of one document need no merge, and tasks of many documents run in one
//! dispatch ([`Attention::tasks`](crate::Attention::tasks)). [`plan`] moves tasks from loaded ranks to idle ones.
//!
//! Source: core attention disaggregation (DistCA 2025, arXiv 2510.18121), section 4, and its released planner.

use std::ops::Range;

use crate::{Error, Result, Task};

/// Tokens of a document at most, so that loads stay exact in f64.
const MAX_TOKENS: usize = 1 << 24;

/// Consecutive queries of one document, which see its keys `0..kv_len`, causally: the last query sees the last key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoreTask {
    /// Which document, counted over all ranks.
    pub doc: usize,
    /// The first query, counted within the document.
    pub q_start: usize,
    /// Queries.
    pub q_len: usize,
    /// Keys: `q_start + q_len`.
    pub kv_len: usize,
}

impl CoreTask {
    /// Pairs of a query and a key that it sees: `q_len kv_len - q_len (q_len - 1) / 2`. Queries that lie before the
    /// first key see none; a number that no u64 holds is the largest that one does.
    pub fn cost(&self) -> u64 {
        let rows = self.q_len.min(self.kv_len) as u128;
        let pairs = rows * self.kv_len as u128 - rows * rows.saturating_sub(1) / 2;
        pairs.try_into().unwrap_or(u64::MAX)
    }

    /// The rows that the task takes of packed tensors in which its document begins at row `doc_start`.
    ///
    /// ```
    /// use wgpu_attention::balance::CoreTask;
    /// let task = CoreTask { doc: 1, q_start: 300, q_len: 100, kv_len: 400 };
    /// assert_eq!(task.rows(1000).q, 1300..1400);
    /// assert_eq!(task.rows(1000).kv, 1000..1400);
    /// ```
    pub fn rows(&self, doc_start: usize) -> Task {
        let q = doc_start.saturating_add(self.q_start);
        Task { q: q..q.saturating_add(self.q_len), kv: doc_start..doc_start.saturating_add(self.kv_len) }
    }
}

/// A task, the rank that holds its document, and the rank that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The task.
    pub task: CoreTask,
    /// The rank that holds the document.
    pub src_rank: usize,
    /// The rank that runs the task.
    pub dst_rank: usize,
}

/// Which rank runs what.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// Every task: what stayed of each document (or all of it, moved), document by document, then what was moved, in the
    /// order of the moves. A document that was cut leaves tasks in pairs, of its head and of its tail.
    pub tasks: Vec<Placed>,
    /// Pairs to compute on each rank, had nothing moved.
    pub load_before: Vec<f64>,
    /// Pairs to compute on each rank.
    pub load_after: Vec<f64>,
}

/// What is sent along with a task: q is `hidden` elements a token, k and v `kv_heads * hidden / heads` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// Elements of q a token, all heads together.
    pub hidden: usize,
    /// Heads of q.
    pub heads: usize,
    /// Heads of k and v.
    pub kv_heads: usize,
}

/// Spreads causal attention over documents evenly: `docs_per_rank` holds the lengths of the documents that lie on each
/// rank; documents are numbered rank after rank.
///
/// The ranks with the largest deficit are served first. Each takes, from ranks with a surplus, the piece that costs least
/// to send for what it computes, as much of it as the deficit and the surplus allow, until less than `tolerance` of the
/// average load is missing. A cut takes as many queries from the end of a piece's head as from the start of its tail;
/// of a document of length L such a pair costs `L + 1` wherever it lies, which is why L must be even.
///
/// ```
/// use wgpu_attention::balance::{Widths, plan};
/// let widths = Widths { hidden: 4096, heads: 32, kv_heads: 8 };
/// let balance = plan(&[vec![4096], vec![1024, 1024]], widths, 0.05)?;
/// let most = balance.load_after.iter().copied().fold(0.0, f64::max);
/// assert!(most <= 1.05 * balance.load_after.iter().sum::<f64>() / 2.0);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] without a rank, for a document of odd length or of more than 2^24 tokens, or for widths that are 0 or
/// do not divide; [`Error::Value`] for a tolerance that is negative or not finite.
pub fn plan(docs_per_rank: &[impl AsRef<[usize]>], widths: Widths, tolerance: f64) -> Result<Balance> {
    let docs: Vec<(usize, usize)> = docs_per_rank
        .iter()
        .enumerate()
        .flat_map(|(rank, lens)| lens.as_ref().iter().map(move |&len| (rank, len)))
        .collect();
    check(docs_per_rank.len(), &docs, widths, tolerance)?;
    let mut pieces: Vec<Piece> =
        docs.iter().enumerate().map(|(doc, &(rank, len))| Piece::whole(doc, len, rank)).collect();
    let load_before = loads(&pieces, docs_per_rank.len());
    spread(&mut pieces, &load_before, widths, tolerance);
    let load_after = loads(&pieces, docs_per_rank.len());
    let tasks = pieces.iter().flat_map(Piece::tasks).collect();
    Ok(Balance { tasks, load_before, load_after })
}

fn check(ranks: usize, docs: &[(usize, usize)], widths: Widths, tolerance: f64) -> Result<()> {
    if ranks == 0 {
        return Err(Error::Shape("docs_per_rank: has no rank, but must have at least 1".into()));
    }
    for (doc, &(_, len)) in docs.iter().enumerate() {
        if len % 2 != 0 {
            let sentence = format!("docs_per_rank: document {doc} has {len} tokens, but must have an even number");
            return Err(Error::Shape(sentence));
        }
        if len > MAX_TOKENS {
            let sentence = format!("docs_per_rank: document {doc} has {len} tokens, but may have {MAX_TOKENS}");
            return Err(Error::Shape(sentence));
        }
    }
    let Widths { hidden, heads, kv_heads } = widths;
    for (name, value) in [("hidden", hidden), ("heads", heads), ("kv_heads", kv_heads)] {
        if value == 0 {
            return Err(Error::Shape(format!("{name}: is 0, but must be positive")));
        }
    }
    if hidden % heads != 0 {
        return Err(Error::Shape(format!("hidden: is {hidden}, but must be a multiple of heads ({heads})")));
    }
    if !(tolerance.is_finite() && tolerance >= 0.0) {
        return Err(Error::Value(format!("tolerance: is {tolerance}, but must be finite and not negative")));
    }
    Ok(())
}

/// A part of a document that one rank runs: queries from its front, and as many from its back.
#[derive(Debug, Clone)]
struct Piece {
    doc: usize,
    len: usize,
    src_rank: usize,
    rank: usize,
    head: Range<usize>,
    tail: Range<usize>,
}

impl Piece {
    fn whole(doc: usize, len: usize, rank: usize) -> Piece {
        Piece { doc, len, src_rank: rank, rank, head: 0..len / 2, tail: len / 2..len }
    }

    /// Pairs of a query at the front and one at the back: the i-th from either end see `len + 1` keys together.
    fn cost(&self) -> f64 {
        self.head.len() as f64 * self.cost_per_query()
    }

    fn cost_per_query(&self) -> f64 {
        self.len as f64 + 1.0
    }

    /// Elements to send for each pair computed, when `pairs` of the piece move: its queries, and all keys and values,
    /// which may be needed up to the last.
    fn price(&self, pairs: f64, widths: Widths) -> f64 {
        let kv_width = widths.kv_heads as f64 * (widths.hidden / widths.heads) as f64;
        let q = pairs / self.cost_per_query() * widths.hidden as f64;
        let kv = 2.0 * self.cost_per_query() * kv_width;
        (q + kv) / pairs
    }

    /// Takes the inner queries off the piece, `pairs` of them at most, for another rank.
    fn split(&mut self, pairs: f64, rank: usize) -> Option<Piece> {
        let queries = ((pairs / self.cost_per_query()) as usize).min(self.head.len());
        if queries == 0 {
            return None;
        }
        let head = self.head.end - queries..self.head.end;
        let tail = self.tail.start..self.tail.start + queries;
        (self.head.end, self.tail.start) = (head.start, tail.end);
        Some(Piece { rank, head, tail, ..self.clone() })
    }

    /// A document in one piece is one task; else head and tail are one each, even where they touch.
    fn tasks(&self) -> impl Iterator<Item = Placed> {
        let whole = 0..self.len;
        let uncut = self.head.start == 0 && self.head.end == self.tail.start && self.tail.end == self.len;
        let queries = if uncut { [whole, 0..0] } else { [self.head.clone(), self.tail.clone()] };
        let placed = |q: Range<usize>| Placed {
            task: CoreTask { doc: self.doc, q_start: q.start, q_len: q.len(), kv_len: q.end },
            src_rank: self.src_rank,
            dst_rank: self.rank,
        };
        queries.into_iter().filter(|q| !q.is_empty()).map(placed)
    }
}

fn loads(pieces: &[Piece], ranks: usize) -> Vec<f64> {
    let mut loads = vec![0.0; ranks];
    for piece in pieces {
        loads[piece.rank] += piece.cost();
    }
    loads
}

/// Moves pieces, whole or in part, until no rank is missing more than `tolerance` of the average load.
fn spread(pieces: &mut Vec<Piece>, loads: &[f64], widths: Widths, tolerance: f64) {
    let average = loads.iter().sum::<f64>() / loads.len() as f64;
    let mut surplus: Vec<f64> = loads.iter().map(|load| load - average).collect();
    let mut recipients: Vec<usize> = (0..loads.len()).filter(|&rank| surplus[rank] < 0.0).collect();
    // Of equal deficits the lower rank's is first: the sort is stable.
    recipients.sort_by(|&a, &b| surplus[a].total_cmp(&surplus[b]));
    for rank in recipients {
        let mut needed = -surplus[rank];
        while needed > average * tolerance {
            let movable = |piece: &Piece| needed.min(piece.cost()).min(surplus[piece.rank]);
            let candidates = (0..pieces.len()).filter(|&n| movable(&pieces[n]) > 0.0);
            let price = |n: usize| pieces[n].price(movable(&pieces[n]), widths);
            // min_by takes the first of equal ones.
            let Some(best) = candidates.min_by(|&a, &b| price(a).total_cmp(&price(b))) else { break };
            let (donor, pairs) = (pieces[best].rank, movable(&pieces[best]));
            let moved = if pairs >= pieces[best].cost() {
                pieces[best].rank = rank;
                pieces[best].cost()
            } else if let Some(part) = pieces[best].split(pairs, rank) {
                pieces.push(part);
                pieces[pieces.len() - 1].cost()
            } else {
                // Less than a pair of queries is missing.
                break;
            };
            surplus[donor] -= moved;
            surplus[rank] += moved;
            needed -= moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: Widths = Widths { hidden: 4096, heads: 32, kv_heads: 8 };

    #[test]
    fn costs_count_the_pairs() {
        let task = |q_start: usize, q_len: usize| CoreTask { doc: 0, q_start, q_len, kv_len: q_start + q_len };
        for (q_start, q_len) in [(0, 6), (3, 4), (5, 0), (7, 1)] {
            let pairs: usize = (q_start..q_start + q_len).map(|q| q + 1).sum();
            assert_eq!(task(q_start, q_len).cost(), pairs as u64);
        }
        assert_eq!(CoreTask { doc: 0, q_start: 0, q_len: 5, kv_len: 2 }.cost(), 3);
        assert_eq!(CoreTask { doc: 0, q_start: 0, q_len: usize::MAX, kv_len: usize::MAX }.cost(), u64::MAX);
    }

    #[test]
    fn one_document_is_shared_by_two() {
        let balance = plan(&[vec![8], vec![]], WIDTHS, 0.0).unwrap();
        let row = |p: &Placed| [p.task.q_start, p.task.q_len, p.task.kv_len, p.src_rank, p.dst_rank];
        let rows: Vec<_> = balance.tasks.iter().map(row).collect();
        assert_eq!(rows, [[0, 2, 2, 0, 0], [6, 2, 8, 0, 0], [2, 2, 4, 0, 1], [4, 2, 6, 0, 1]]);
        assert_eq!((balance.load_before, balance.load_after), (vec![36.0, 0.0], vec![18.0, 18.0]));
    }

    #[test]
    fn every_query_is_run_once_and_ranks_are_even() {
        let docs = [vec![4098, 10], vec![], vec![514, 0, 302], vec![64; 7], vec![2050, 2050]];
        let lens: Vec<usize> = docs.concat();
        let balance = plan(&docs, WIDTHS, 0.02).unwrap();
        let mut run: Vec<Vec<bool>> = lens.iter().map(|&len| vec![false; len]).collect();
        let mut loads = vec![0.0; docs.len()];
        for Placed { task, dst_rank, .. } in &balance.tasks {
            assert_eq!(task.kv_len, task.q_start + task.q_len);
            loads[*dst_rank] += task.cost() as f64;
            let queries = &mut run[task.doc][task.q_start..task.kv_len];
            assert!(!queries.contains(&true), "{task:?} is run twice");
            queries.fill(true);
        }
        assert!(run.concat().into_iter().all(|run| run));
        assert_eq!(loads, balance.load_after);
        let average = loads.iter().sum::<f64>() / loads.len() as f64;
        assert!(loads.iter().all(|load| *load >= 0.97 * average), "{loads:?}");
        assert!(balance.load_before.iter().any(|load| *load < 0.1 * average));
    }

    #[test]
    fn bad_input_is_told() {
        let told = |docs: &[Vec<usize>], widths, tolerance| plan(docs, widths, tolerance).unwrap_err().to_string();
        assert_eq!(told(&[], WIDTHS, 0.1), "docs_per_rank: has no rank, but must have at least 1");
        let odd = "docs_per_rank: document 1 has 3 tokens, but must have an even number";
        assert_eq!(told(&[vec![2], vec![3]], WIDTHS, 0.1), odd);
        assert_eq!(told(&[vec![2]], WIDTHS, -0.5), "tolerance: is -0.5, but must be finite and not negative");
        assert!(told(&[vec![2]], WIDTHS, f64::NAN).starts_with("tolerance: is NaN"));
        assert!(told(&[vec![1 << 25]], WIDTHS, 0.1).contains("may have 16777216"));
        let widths = Widths { heads: 3, ..WIDTHS };
        assert_eq!(told(&[vec![2]], widths, 0.1), "hidden: is 4096, but must be a multiple of heads (3)");
        assert_eq!(told(&[vec![2]], Widths { kv_heads: 0, ..WIDTHS }, 0.1), "kv_heads: is 0, but must be positive");
        assert!(plan(&[vec![], vec![0]], WIDTHS, 0.0).unwrap().tasks.is_empty());
    }
}
