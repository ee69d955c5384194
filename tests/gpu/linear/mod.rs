//! Linear attention against the recurrence.

mod gradients;
mod judge;
mod problem;
mod properties;
mod shapes;
mod states;
