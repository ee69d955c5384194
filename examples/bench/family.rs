//! Families of linear attention, and what they cost.

use crate::cases::Case;

/// Rows of a chunk that operations are counted for.
const CHUNK: f64 = 64.0;

/// The families of the case table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A constant decay a head.
    Lightning,
    /// A decay a token.
    SimpleGla,
    /// A decay a token and channel.
    Gla,
    /// The delta rule, without a decay, with one a token, and with one a channel.
    Delta,
    GatedDelta,
    Kda,
    /// The feature map elu + 1, with its denominator.
    Elu1,
    /// The same where attention is not causal.
    Elu1Full,
}

impl Family {
    pub fn of(name: &str) -> Option<Family> {
        Some(match name {
            "lightning" => Family::Lightning,
            "simple_gla" => Family::SimpleGla,
            "gla" => Family::Gla,
            "delta" => Family::Delta,
            "gated_delta" => Family::GatedDelta,
            "kda" => Family::Kda,
            "elu1" => Family::Elu1,
            "elu1_full" => Family::Elu1Full,
            _ => return None,
        })
    }

    pub fn is_elu1(self) -> bool {
        matches!(self, Family::Elu1 | Family::Elu1Full)
    }

    pub fn is_delta(self) -> bool {
        matches!(self, Family::Delta | Family::GatedDelta | Family::Kda)
    }

    /// Columns of the decay's tensor, 0 without one.
    pub fn channels(self, case: &Case) -> usize {
        match self {
            Family::SimpleGla | Family::GatedDelta => 1,
            Family::Gla | Family::Kda => case.head_dim,
            Family::Lightning | Family::Delta | Family::Elu1 | Family::Elu1Full => 0,
        }
    }

    /// In chunks of 64, whole ones, above the diagonal too; a single token, and what is not causal, goes through the state alone.
    pub fn flops(self, case: &Case) -> f64 {
        let (k, v) = (case.head_dim as f64, case.v_dim as f64);
        let decayed = if self == Family::Delta || self.is_elu1() { 0.0 } else { k * v };
        let token = match (case.len_q, self.is_delta()) {
            _ if self == Family::Elu1Full => 4.0 * k * v,
            (1, false) => 4.0 * k * v + decayed,
            (1, true) => 6.0 * k * v + decayed,
            (_, false) => 4.0 * k * v + 2.0 * CHUNK * (k + v),
            (_, true) => 6.0 * k * v + 2.0 * CHUNK * (3.0 * k + 2.0 * v) + CHUNK * CHUNK / 3.0,
        };
        token * tokens(case)
    }

    /// q, k, v, out and gates once; the state of a single token, f32, is read and written.
    pub fn bytes(self, case: &Case) -> f64 {
        let row = 2 * (case.head_dim + case.v_dim) + self.channels(case) + usize::from(self.is_delta());
        let state = if case.len_q == 1 { 8 * case.head_dim * case.v_dim } else { 0 };
        (row * case.dtype.size() + state) as f64 * tokens(case)
    }
}

/// Tokens of all heads.
pub fn tokens(case: &Case) -> f64 {
    (case.batch * case.heads * case.len_q) as f64
}
