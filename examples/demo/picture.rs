//! The picture: a row a head, a column a mask.

use std::path::Path;

use plotters::style::RGBColor;

use crate::canvas::{Align, Brush, CODE, Canvas, Ink, WORDS};
use crate::maps::Map;

/// Pixels of a pair's square, and of what stands around the maps.
const CELL: f64 = 17.0;
const MARGIN: f64 = 44.0;
const HEADER: f64 = 132.0;
const TITLE: f64 = 40.0;
const ROW_LABELS: f64 = 108.0;
const COLUMN_LABELS: f64 = 106.0;
const GAP: f64 = 30.0;
const ROW_GAP: f64 = 14.0;
const FOOTER: f64 = 64.0;

const DARK: RGBColor = RGBColor(0x1d, 0x22, 0x33);
const SOFT: RGBColor = RGBColor(0x6b, 0x72, 0x80);
const MASKED: RGBColor = RGBColor(0xe2, 0xe3, 0xe6);
const FRAME: RGBColor = RGBColor(0xb9, 0xbd, 0xc6);

/// From no weight to all of it; lightness falls evenly, so that equal steps look equal.
const RAMP: [RGBColor; 9] = [
    RGBColor(0xff, 0xff, 0xff),
    RGBColor(0xde, 0xf5, 0xe5),
    RGBColor(0xa8, 0xe1, 0xbc),
    RGBColor(0x60, 0xce, 0xac),
    RGBColor(0x38, 0xaa, 0xac),
    RGBColor(0x34, 0x86, 0xa5),
    RGBColor(0x3b, 0x5f, 0x9a),
    RGBColor(0x3e, 0x36, 0x70),
    RGBColor(0x1b, 0x0c, 0x22),
];

/// Everything that is drawn.
pub struct Picture<'a> {
    /// The line under the heading.
    pub source: String,
    /// What the numbers mean.
    pub notes: [String; 2],
    /// One for each row and column of every map.
    pub tokens: &'a [String],
    /// For each head the maps, each with the name of its mask.
    pub heads: Vec<Vec<(&'static str, Map)>>,
}

impl Picture<'_> {
    /// Draws and writes it.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let side = self.tokens.len() as f64 * CELL;
        let columns = self.heads.iter().map(Vec::len).max().unwrap_or(0) as f64;
        let step = (side + GAP, TITLE + side + COLUMN_LABELS + ROW_GAP);
        let width = 2.0 * MARGIN + ROW_LABELS + columns * step.0 - GAP;
        let height = MARGIN + HEADER + self.heads.len() as f64 * step.1 - ROW_GAP + FOOTER + MARGIN;
        let mut canvas = Canvas::new(width, height)?;
        canvas.paint(|brush| {
            self.header(brush, width)?;
            for (row, maps) in self.heads.iter().enumerate() {
                let top = MARGIN + HEADER + row as f64 * step.1 + TITLE;
                for (column, (mask, map)) in maps.iter().enumerate() {
                    let left = MARGIN + ROW_LABELS + column as f64 * step.0;
                    self.map(brush, mask, map, (left, top))?;
                    self.column_labels(brush, (left, top + side))?;
                }
                self.row_labels(brush, (MARGIN + ROW_LABELS, top))?;
            }
            let ink = Ink { font: WORDS, size: 21.0, color: SOFT };
            for (line, note) in self.notes.iter().rev().enumerate() {
                brush.text(note, ink, (MARGIN + ROW_LABELS, height - MARGIN - 30.0 * line as f64), Align::Start)?;
            }
            Ok(())
        })?;
        canvas.save(path)
    }

    fn header(&self, brush: &Brush<'_>, width: f64) -> Result<(), String> {
        let left = MARGIN + ROW_LABELS;
        let heading = Ink { font: WORDS, size: 52.0, color: DARK };
        brush.text("What each word looks at", heading, (left, MARGIN + 40.0), Align::Start)?;
        brush.text(&self.source, Ink { font: WORDS, size: 24.0, color: SOFT }, (left, MARGIN + 80.0), Align::Start)?;
        self.color_bar(brush, (width - MARGIN, MARGIN + 22.0))
    }

    /// Ends at `right`, with its ticks below.
    fn color_bar(&self, brush: &Brush<'_>, (right, top): (f64, f64)) -> Result<(), String> {
        let (length, height) = (440.0, 22.0);
        let ink = Ink { font: WORDS, size: 21.0, color: DARK };
        for n in 0..length as usize {
            let x = right - length + n as f64;
            brush.rectangle((x, top), (x + 1.0, top + height), shade(unshare(n as f64 / length)))?;
        }
        frame(brush, (right - length, top), (right, top + height))?;
        brush.text("attention weight", ink, (right - length, top - 10.0), Align::Start)?;
        for (weight, label) in [(0.0, "0"), (0.01, "1 %"), (0.1, "10 %"), (0.25, "25 %"), (0.5, "50 %"), (1.0, "100 %")]
        {
            let x = right - length + length * share(weight);
            brush.rectangle((x - 0.5, top + height), (x + 0.5, top + height + 6.0), FRAME)?;
            let align = if weight == 1.0 {
                Align::End
            } else if weight == 0.0 {
                Align::Start
            } else {
                Align::Middle
            };
            brush.text(label, Ink { size: 19.0, ..ink }, (x, top + height + 25.0), align)?;
        }
        // What the mask excludes is no weight at all.
        let x = right - length - 150.0;
        brush.rectangle((x, top), (x + 48.0, top + height), MASKED)?;
        frame(brush, (x, top), (x + 48.0, top + height))?;
        brush.text("masked", Ink { size: 19.0, ..ink }, (x + 24.0, top + height + 25.0), Align::Middle)
    }

    fn map(&self, brush: &Brush<'_>, mask: &str, map: &Map, (left, top): (f64, f64)) -> Result<(), String> {
        let side = self.tokens.len() as f64 * CELL;
        for (i, row) in map.rows.iter().enumerate() {
            for (j, weight) in row.iter().take(self.tokens.len()).enumerate() {
                let at = (left + j as f64 * CELL, top + i as f64 * CELL);
                brush.rectangle(at, (at.0 + CELL, at.1 + CELL), weight.map_or(MASKED, shade))?;
            }
        }
        frame(brush, (left, top), (left + side, top + side))?;
        let title = Ink { font: WORDS, size: 28.0, color: DARK };
        let start = format!("head {}, {mask}", map.head);
        brush.text(&start, title, (left, top - 13.0), Align::Start)?;
        let numbers = format!("{:.1} tokens away, {:.2} nats", map.distance(), map.entropy());
        brush.text(&numbers, Ink { size: 21.0, color: SOFT, ..title }, (left + side, top - 13.0), Align::End)
    }

    fn row_labels(&self, brush: &Brush<'_>, (right, top): (f64, f64)) -> Result<(), String> {
        for (i, token) in self.tokens.iter().enumerate() {
            let middle = top + (i as f64 + 0.5) * CELL;
            brush.text(token, LABEL, (right - 8.0, middle + 0.26 * LABEL.size), Align::End)?;
        }
        Ok(())
    }

    fn column_labels(&self, brush: &Brush<'_>, (left, bottom): (f64, f64)) -> Result<(), String> {
        for (j, token) in self.tokens.iter().enumerate() {
            let middle = left + (j as f64 + 0.5) * CELL;
            brush.upwards(token, LABEL, (middle + 0.26 * LABEL.size, bottom + 8.0), Align::End)?;
        }
        Ok(())
    }
}

const LABEL: Ink = Ink { font: CODE, size: 15.0, color: DARK };

/// A hairline around a rectangle.
fn frame(brush: &Brush<'_>, (left, top): (f64, f64), (right, bottom): (f64, f64)) -> Result<(), String> {
    brush.rectangle((left - 1.0, top - 1.0), (right + 1.0, top), FRAME)?;
    brush.rectangle((left - 1.0, bottom), (right + 1.0, bottom + 1.0), FRAME)?;
    brush.rectangle((left - 1.0, top), (left, bottom), FRAME)?;
    brush.rectangle((right, top), (right + 1.0, bottom), FRAME)
}

const GAMMA: f64 = 0.4;

/// Where on the ramp a weight lies. The power spreads the small ones, which are most.
fn share(weight: f64) -> f64 {
    weight.clamp(0.0, 1.0).powf(GAMMA)
}

/// The weight at a place of the ramp.
fn unshare(place: f64) -> f64 {
    place.powf(1.0 / GAMMA)
}

fn shade(weight: f64) -> RGBColor {
    let place = share(weight) * (RAMP.len() - 1) as f64;
    let below = (place as usize).min(RAMP.len() - 2);
    let (a, b, t) = (RAMP[below], RAMP[below + 1], place - below as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + t * (f64::from(b) - f64::from(a))).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
