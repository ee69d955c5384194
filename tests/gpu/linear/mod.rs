//! Linear attention against the recurrence.

mod gradients;
mod problem;
mod properties;
mod shapes;
mod states;
