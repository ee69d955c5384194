//! A diagonal state space's parameters, and what becomes of them in discrete time: host, f64.

use crate::{Error, Result};

/// From continuous to discrete time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Discretization {
    /// `A' = e^(dt A)`, `B' = B (A' - 1) / A`: the input holds between steps.
    #[default]
    ZeroOrderHold,
    /// `A' = (1 + dt A / 2) / (1 - dt A / 2)`, `B' = B dt / (1 - dt A / 2)`.
    Bilinear,
}

/// The parameters of [`S4d`](crate::S4d): for each channel a time step, and for each of its states a pole A, B and C, complex as
/// `[re, im]`, channel by channel. A state stands for itself and its conjugate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct S4dParams {
    /// `ln dt` of each channel.
    pub log_dt: Vec<f32>,
    /// Poles, states of a channel one after the other.
    pub a: Vec<[f32; 2]>,
    /// Input weights, likewise.
    pub b: Vec<[f32; 2]>,
    /// Output weights, likewise.
    pub c: Vec<[f32; 2]>,
    /// What of the input goes straight to the output, a number a channel; empty for nothing.
    pub d: Vec<f32>,
    /// From continuous to discrete time.
    pub discretization: Discretization,
}

type Complex = [f64; 2];

fn product(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn quotient(a: Complex, b: Complex) -> Complex {
    let by = b[0] * b[0] + b[1] * b[1];
    let [re, im] = product(a, [b[0], -b[1]]);
    [re / by, im / by]
}

/// `e^z - 1`, also where z is small.
fn exp_m1(z: Complex) -> Complex {
    let half = (0.5 * z[1]).sin();
    [z[0].exp_m1() * z[1].cos() - 2.0 * half * half, z[0].exp() * z[1].sin()]
}

/// A transition in discrete time, and what goes in and out.
pub(super) struct Mode {
    /// The angle as a fraction of a turn in 64 bits, high word first, the bits of `ln |A'|`, and 0.
    pub power: [u32; 4],
    /// `B'`, `2 C`.
    pub weights: [f32; 4],
}

impl S4dParams {
    pub(super) fn channels(&self) -> usize {
        self.log_dt.len()
    }

    pub(super) fn states(&self) -> usize {
        self.a.len() / self.channels().max(1)
    }

    pub(super) fn check(&self) -> Result<()> {
        let (channels, states) = (self.channels(), self.states());
        if channels == 0 || states == 0 || self.a.len() != channels * states {
            return Err(Error::Shape(format!(
                "a: has {} poles, but must have as many for each channel (channels {channels})",
                self.a.len()
            )));
        }
        if states > 256 {
            return Err(Error::Limit(format!("a: has {states} poles a channel, but at most 256 are taken")));
        }
        for (name, len) in [("b", self.b.len()), ("c", self.c.len())] {
            if len != self.a.len() {
                return Err(Error::Shape(format!(
                    "{name}: has {len} numbers, but must have one a pole ({})",
                    self.a.len()
                )));
            }
        }
        if !self.d.is_empty() && self.d.len() != channels {
            return Err(Error::Shape(format!(
                "d: has {} numbers, but must have none, or one a channel (channels {channels})",
                self.d.len()
            )));
        }
        let numbers = |pairs: &[[f32; 2]]| pairs.iter().flatten().all(|x| x.is_finite());
        let all = [
            ("log_dt", self.log_dt.iter().all(|x| x.is_finite())),
            ("a", numbers(&self.a)),
            ("b", numbers(&self.b)),
            ("c", numbers(&self.c)),
            ("d", self.d.iter().all(|x| x.is_finite())),
        ];
        if let Some((name, _)) = all.iter().find(|(_, finite)| !finite) {
            return Err(Error::Value(format!("{name}: has a number that is not finite")));
        }
        if let Some((n, [re, _])) = self.a.iter().enumerate().find(|(_, [re, _])| *re > 0.0) {
            return Err(Error::Value(format!("a: pole {n} has the real part {re}, but must not grow (at most 0)")));
        }
        Ok(())
    }

    /// All modes, states of a channel one after the other.
    pub(super) fn modes(&self) -> Vec<Mode> {
        let wide = |[re, im]: [f32; 2]| [f64::from(re), f64::from(im)];
        let states = self.states();
        (0..self.a.len())
            .map(|n| {
                let (dt, a) = (f64::from(self.log_dt[n / states]).exp(), wide(self.a[n]));
                let z = [dt * a[0], dt * a[1]];
                let (log, angle, b) = match self.discretization {
                    Discretization::ZeroOrderHold => {
                        // (e^z - 1) / A goes to dt where A goes to 0.
                        let hold = if a == [0.0, 0.0] { [dt, 0.0] } else { quotient(exp_m1(z), a) };
                        (z[0], z[1], hold)
                    }
                    Discretization::Bilinear => {
                        let below = [1.0 - 0.5 * z[0], -0.5 * z[1]];
                        let [re, im] = quotient([1.0 + 0.5 * z[0], 0.5 * z[1]], below);
                        (0.5 * (re * re + im * im).ln(), im.atan2(re), quotient([dt, 0.0], below))
                    }
                };
                let b = product(b, wide(self.b[n]));
                let turns = (angle / std::f64::consts::TAU).rem_euclid(1.0);
                // 2^64 itself, which rounding may yield, is a whole turn: 0.
                let turns = (turns * 2f64.powi(64)) as u128 as u64;
                Mode {
                    // A pole may send everything to 0 at once: a finite logarithm stands for that.
                    power: [(turns >> 32) as u32, turns as u32, (log.max(-1e4) as f32).to_bits(), 0],
                    weights: [b[0] as f32, b[1] as f32, 2.0 * self.c[n][0], 2.0 * self.c[n][1]],
                }
            })
            .collect()
    }
}
