//! The picture of a pattern: its pairs, and its tiles as a plan visits them.

use std::path::Path;

use plotters::style::RGBColor;
use wgpu_attention::{BlockMask, TileClass};

use crate::canvas::{Align, Brush, CODE, Canvas, Ink, WORDS};
use crate::measure::Time;
use crate::patterns::{Pattern, len};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 424.0;
/// Sides of a tile in the pictures, in tokens.
const TILE: usize = 16;
/// A pixel a pair: anything else would blur fine patterns, and take more bytes.
const PANEL: f64 = 256.0;
const TOP: f64 = 104.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 366.0;
/// Where the legend and the numbers begin, and where they end.
const NOTES: f64 = 656.0;
const END: f64 = 876.0;

const DARK: RGBColor = RGBColor(0x1d, 0x22, 0x33);
const SOFT: RGBColor = RGBColor(0x5f, 0x66, 0x75);
const EMPTY: RGBColor = RGBColor(0xec, 0xee, 0xf1);
const SEEN: RGBColor = RGBColor(0x3b, 0x5f, 0x9a);
const PARTIAL: RGBColor = RGBColor(0xa9, 0xc4, 0xe6);
const FULL: RGBColor = RGBColor(0x24, 0x45, 0x7c);

const SMALL: Ink = Ink { font: WORDS, size: 17.0, color: SOFT };
const NUMBER: Ink = Ink { color: DARK, ..SMALL };
/// What a letter of the code font takes of its size, and the largest size of a call.
const LETTER: f64 = 0.53;
const CALL: f64 = 20.0;

/// Draws and writes; returns what share of pairs and tiles is left, in words.
pub fn draw(pattern: &Pattern, time: &Time, path: &Path) -> Result<String, String> {
    let made = pattern.small();
    let n = len(1);
    let host = made.mask.host([1, 1, n, n]).map_err(|e| e.to_string())?;
    let order = host.order(0);
    let tiles = host.tiles(0, 0, [TILE, TILE], &order).map_err(|e| e.to_string())?;
    let pairs: usize = (0..n).map(|i| host.count(0, 0, i)).sum();
    let shares = [pairs as f64 / (n * n) as f64, tiles.density()].map(|share| format!("{:.1} %", 100.0 * share));

    let mut canvas = Canvas::new(WIDTH, HEIGHT)?;
    canvas.paint(|brush| {
        // Long calls in smaller letters, so that they fit one line.
        let size = ((END - LEFT) / made.call.chars().count() as f64 / LETTER).min(CALL);
        brush.text(&made.call, Ink { font: CODE, size, color: DARK }, (LEFT, 38.0), Align::Start)?;
        brush.text(pattern.title, Ink { size: 19.0, ..SMALL }, (LEFT, 65.0), Align::Start)?;

        let pair = |i, j| if host.allows(0, 0, i, j) { SEEN } else { EMPTY };
        panel(brush, (LEFT, TOP), [n, n], &pair)?;
        let tile = |i, j| color(tiles.class(0, i, j));
        panel(brush, (RIGHT, TOP), tiles.blocks(), &tile)?;
        let how = if order.is_sequence() { "" } else { ", in the mask's order" };
        axes(brush, LEFT, &format!("{n} tokens, pair by pair"), n)?;
        axes(brush, RIGHT, &format!("tiles of {TILE} x {TILE}{how}"), tiles.blocks()[0])?;
        notes(brush, &tiles, &shares)?;
        brush.text(&time.sentence(), NUMBER, (LEFT, HEIGHT - 14.0), Align::Start)
    })?;
    canvas.save(path)?;
    Ok(format!("{} of pairs attend, {} of tiles are visited", shares[0], shares[1]))
}

fn color(class: TileClass) -> RGBColor {
    match class {
        TileClass::Full => FULL,
        TileClass::Partial => PARTIAL,
        TileClass::Empty => EMPTY,
    }
}

/// A square of cells; cells of one colour beside each other are one rectangle.
fn panel(
    brush: &Brush<'_>,
    at: (f64, f64),
    [rows, cols]: [usize; 2],
    color: &dyn Fn(usize, usize) -> RGBColor,
) -> Result<(), String> {
    let edge = |cell: usize, cells: usize| cell as f64 * PANEL / cells as f64;
    for i in 0..rows {
        let mut start = 0;
        for j in 1..=cols {
            if j == cols || color(i, j) != color(i, start) {
                let from = (at.0 + edge(start, cols), at.1 + edge(i, rows));
                brush.rectangle(from, (at.0 + edge(j, cols), at.1 + edge(i + 1, rows)), color(i, start))?;
                start = j;
            }
        }
    }
    Ok(())
}

/// What stands around a panel: its heading, and keys to the right, queries down.
fn axes(brush: &Brush<'_>, left: f64, heading: &str, cells: usize) -> Result<(), String> {
    let (right, bottom, below) = (left + PANEL, TOP + PANEL, TOP + PANEL + 18.0);
    brush.text(heading, SMALL, (left, TOP - 9.0), Align::Start)?;
    brush.text("0", SMALL, (left, below), Align::Start)?;
    brush.text("keys", SMALL, (left + PANEL / 2.0, below), Align::Middle)?;
    brush.text(&cells.to_string(), SMALL, (right, below), Align::End)?;
    brush.upwards("queries", SMALL, (left - 8.0, TOP + PANEL / 2.0), Align::Middle)?;
    brush.upwards(&cells.to_string(), SMALL, (left - 8.0, bottom), Align::Start)
}

/// What the colours of tiles mean, how many there are, and what is left of pairs and tiles.
fn notes(brush: &Brush<'_>, tiles: &BlockMask, [pairs, visited]: &[String; 2]) -> Result<(), String> {
    let count = |class| tiles.classes().iter().filter(|&&listed| listed == class).count();
    let empty = tiles.blocks().iter().product::<usize>() - tiles.classes().len();
    let classes = [
        (TileClass::Full, "full: not tested", count(TileClass::Full)),
        (TileClass::Partial, "partial: tested", count(TileClass::Partial)),
        (TileClass::Empty, "empty: skipped", empty),
    ];
    let mut y = TOP + 14.0;
    for (class, words, count) in classes {
        brush.rectangle((NOTES, y - 12.0), (NOTES + 14.0, y + 2.0), color(class))?;
        brush.text(words, NUMBER, (NOTES + 24.0, y), Align::Start)?;
        brush.text(&count.to_string(), NUMBER, (END, y), Align::End)?;
        y += 26.0;
    }
    for (words, share) in [("tiles visited", visited), ("pairs that attend", pairs)] {
        y += 26.0;
        brush.text(words, NUMBER, (NOTES, y), Align::Start)?;
        brush.text(share, NUMBER, (END, y), Align::End)?;
    }
    Ok(())
}
