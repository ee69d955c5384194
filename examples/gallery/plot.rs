//! Curves over two axes, linear or logarithmic.

use plotters::style::RGBColor;

use crate::canvas::{Align, Brush, Ink, WORDS};

const DARK: RGBColor = RGBColor(0x1d, 0x22, 0x33);
pub const SOFT: RGBColor = RGBColor(0x5f, 0x66, 0x75);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xea);

pub const SMALL: Ink = Ink { font: WORDS, size: 16.0, color: SOFT };
pub const TITLE: Ink = Ink { font: WORDS, size: 20.0, color: DARK };

/// One direction: what it says, its ends, and where it is marked.
pub struct Axis<'a> {
    pub label: &'a str,
    pub from: f64,
    pub to: f64,
    pub marks: Vec<(f64, String)>,
    pub logarithmic: bool,
}

impl Axis<'_> {
    /// The share of the way from one end to the other; beyond the ends, the end.
    fn share(&self, value: f64) -> f64 {
        let at = |x: f64| if self.logarithmic { x.max(f64::MIN_POSITIVE).ln() } else { x };
        ((at(value) - at(self.from)) / (at(self.to) - at(self.from))).clamp(0.0, 1.0)
    }
}

/// Axes around a rectangle of the picture.
pub struct Plot<'a> {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
}

impl Plot<'_> {
    pub fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.left + self.width * self.x.share(x), self.top + self.height * (1.0 - self.y.share(y)))
    }

    /// The grid, its numbers, and what the axes say.
    pub fn frame(&self, brush: &Brush<'_>) -> Result<(), String> {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for (value, words) in &self.x.marks {
            let x = self.at((*value, self.y.from)).0;
            brush.line(&[(x, self.top), (x, bottom)], 1.0, GRID)?;
            brush.text(words, SMALL, (x, bottom + 20.0), Align::Middle)?;
        }
        for (value, words) in &self.y.marks {
            let y = self.at((self.x.from, *value)).1;
            brush.line(&[(self.left, y), (right, y)], 1.0, GRID)?;
            brush.text(words, SMALL, (self.left - 8.0, y + 5.0), Align::End)?;
        }
        brush.line(&[(self.left, self.top), (self.left, bottom), (right, bottom)], 1.0, SOFT)?;
        brush.text(self.x.label, SMALL, (self.left + self.width / 2.0, bottom + 42.0), Align::Middle)?;
        brush.upwards(self.y.label, SMALL, (self.left - 48.0, self.top + self.height / 2.0), Align::Middle)
    }

    /// A line through points, a dot on each.
    pub fn curve(&self, brush: &Brush<'_>, points: &[(f64, f64)], color: RGBColor) -> Result<(), String> {
        let points: Vec<(f64, f64)> = points.iter().map(|&point| self.at(point)).collect();
        brush.line(&points, 2.0, color)?;
        points.iter().try_for_each(|&point| brush.dot(point, 4.0, color))
    }

    /// A broken line, for what is expected rather than measured.
    #[allow(dead_code, reason = "not every plot has it")]
    pub fn expected(&self, brush: &Brush<'_>, points: &[(f64, f64)], color: RGBColor) -> Result<(), String> {
        const DASH: f64 = 7.0;
        let points: Vec<(f64, f64)> = points.iter().map(|&point| self.at(point)).collect();
        for pair in points.windows(2) {
            let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
            let dashes = ((bx - ax).hypot(by - ay) / DASH).ceil().max(1.0);
            let on = |n: f64| (ax + (bx - ax) * n / dashes, ay + (by - ay) * n / dashes);
            for n in (0..dashes as usize).step_by(2) {
                brush.line(&[on(n as f64), on(n as f64 + 1.0)], 2.0, color)?;
            }
        }
        Ok(())
    }
}

/// Names beside squares of their colours, from left to right.
pub fn legend(brush: &Brush<'_>, mut at: (f64, f64), names: &[(&str, RGBColor)]) -> Result<(), String> {
    for (name, color) in names {
        brush.rectangle((at.0, at.1 - 11.0), (at.0 + 12.0, at.1 + 1.0), *color)?;
        brush.text(name, SMALL, (at.0 + 18.0, at.1), Align::Start)?;
        at.0 += 46.0 + 7.8 * name.chars().count() as f64;
    }
    Ok(())
}
