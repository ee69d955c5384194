//! The picture of a pattern: its pairs, and its tiles as a plan visits them.

use std::path::Path;

use plotters::style::RGBColor;
use wgpu_attention::TileClass;

use crate::canvas::{Align, Brush, CODE, Canvas, Ink, WORDS};
use crate::measure::Time;
use crate::patterns::{Pattern, len};

/// Sides of a tile in the pictures, in tokens.
const TILE: usize = 16;
/// A pixel a pair: anything else would blur fine patterns, and take more bytes.
const PANEL: f64 = 256.0;
const MARGIN: f64 = 30.0;
const LABEL: f64 = 26.0;
const HEADER: f64 = 104.0;
const GAP: f64 = 46.0;
const FOOTER: f64 = 62.0;

const DARK: RGBColor = RGBColor(0x1d, 0x22, 0x33);
const SOFT: RGBColor = RGBColor(0x5f, 0x66, 0x75);
const EMPTY: RGBColor = RGBColor(0xec, 0xee, 0xf1);
const SEEN: RGBColor = RGBColor(0x3b, 0x5f, 0x9a);
const PARTIAL: RGBColor = RGBColor(0xa9, 0xc4, 0xe6);
const FULL: RGBColor = RGBColor(0x24, 0x45, 0x7c);

/// Draws and writes; returns what share of pairs and tiles is left, in words.
pub fn draw(pattern: &Pattern, time: &Time, path: &Path) -> Result<String, String> {
    let made = pattern.small();
    let n = len(1);
    let host = made.mask.host([1, 1, n, n]).map_err(|e| e.to_string())?;
    let order = host.order(0);
    let tiles = host.tiles(0, 0, [TILE, TILE], &order).map_err(|e| e.to_string())?;
    let pairs: usize = (0..n).map(|i| host.count(0, 0, i)).sum();
    let share = pairs as f64 / (n * n) as f64;
    let worth =
        format!("{:.1} % of pairs attend, {:.1} % of tiles are visited", 100.0 * share, 100.0 * tiles.density());

    let width = 2.0 * (MARGIN + LABEL) + 2.0 * PANEL + GAP;
    let mut canvas = Canvas::new(width, HEADER + PANEL + LABEL + FOOTER)?;
    canvas.paint(|brush| {
        let left = MARGIN + LABEL;
        brush.text(pattern.title, Ink { font: WORDS, size: 27.0, color: DARK }, (left, 40.0), Align::Start)?;
        // Long calls in smaller letters, so that they fit one line.
        let size = (2.0 * PANEL + GAP) / made.call.chars().count() as f64 / 0.62;
        let ink = Ink { font: CODE, size: size.min(16.0), color: SOFT };
        brush.text(&made.call, ink, (left, 66.0), Align::Start)?;
        panel(brush, (left, HEADER), n, &|i, j| if host.allows(0, 0, i, j) { SEEN } else { EMPTY })?;
        let right = left + PANEL + GAP;
        let [rows, cols] = tiles.blocks();
        panel(
            brush,
            (right, HEADER),
            rows.max(cols),
            &|i, j| match (i < rows && j < cols).then(|| tiles.class(0, i, j)) {
                Some(TileClass::Full) => FULL,
                Some(TileClass::Partial) => PARTIAL,
                _ => EMPTY,
            },
        )?;
        let small = Ink { font: WORDS, size: 17.0, color: SOFT };
        brush.text(&format!("{n} tokens, pair by pair"), small, (left, HEADER - 8.0), Align::Start)?;
        let how = if order.is_sequence() { "" } else { ", in the order visited" };
        brush.text(&format!("tiles of {TILE} x {TILE}{how}"), small, (right, HEADER - 8.0), Align::Start)?;
        legend(brush, (right + PANEL, HEADER + PANEL + 20.0), small)?;
        for at in [left, right] {
            brush.text("keys", small, (at, HEADER + PANEL + 20.0), Align::Start)?;
            brush.upwards("queries", small, (at - 8.0, HEADER + PANEL / 2.0), Align::Middle)?;
        }
        let footer = HEADER + PANEL + LABEL + 24.0;
        brush.text(&worth, Ink { color: DARK, ..small }, (left, footer), Align::Start)?;
        brush.text(&time.sentence(), Ink { color: DARK, ..small }, (left, footer + 20.0), Align::Start)
    })?;
    canvas.save(path)?;
    Ok(worth)
}

/// A square of `n` by `n` cells; cells of one colour beside each other are one rectangle.
fn panel(brush: &Brush<'_>, at: (f64, f64), n: usize, color: &dyn Fn(usize, usize) -> RGBColor) -> Result<(), String> {
    let edge = |cell: usize| cell as f64 * PANEL / n as f64;
    for i in 0..n {
        let mut start = 0;
        for j in 1..=n {
            if j == n || color(i, j) != color(i, start) {
                let (from, to) = ((at.0 + edge(start), at.1 + edge(i)), (at.0 + edge(j), at.1 + edge(i + 1)));
                brush.rectangle(from, to, color(i, start))?;
                start = j;
            }
        }
    }
    Ok(())
}

/// What the colours of tiles mean, ending at `right`.
fn legend(brush: &Brush<'_>, right: (f64, f64), ink: Ink) -> Result<(), String> {
    let mut x = right.0;
    for (word, color, width) in [("empty", EMPTY, 44.0), ("partial", PARTIAL, 48.0), ("full", FULL, 24.0)] {
        x -= width;
        brush.rectangle((x - 17.0, right.1 - 11.0), (x - 5.0, right.1 + 1.0), color)?;
        brush.text(word, ink, (x + width, right.1), Align::End)?;
        x -= 28.0;
    }
    Ok(())
}
