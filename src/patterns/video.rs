//! Patterns over video.
