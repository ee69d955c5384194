//! A bitmap to draw on in fractions of a pixel, with fonts that are part of the program.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use epaint_default_fonts::{HACK_REGULAR, UBUNTU_LIGHT};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontTransform, register_font};

/// Pixels drawn for each pixel kept, in both directions: glyphs land on whole pixels only, so finer ones space better.
const FINE: u32 = 2;

/// Where a text begins, ends or has its middle, along its own direction.
#[derive(Clone, Copy)]
pub enum Align {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub struct Ink {
    pub font: &'static str,
    pub size: f64,
    pub color: RGBColor,
}

/// A font for words.
pub const WORDS: &str = "ubuntu light";
/// A font for tokens and numbers.
pub const CODE: &str = "hack";

/// Coordinates are pixels of the finished picture, from the top left.
pub struct Canvas {
    size: (u32, u32),
    fine: Vec<u8>,
}

impl Canvas {
    /// White paper.
    pub fn new(width: f64, height: f64) -> Result<Canvas, String> {
        for (name, bytes) in [(WORDS, UBUNTU_LIGHT), (CODE, HACK_REGULAR)] {
            register_font(name, FontStyle::Normal, bytes).map_err(|_| format!("font: {name} could not be read"))?;
        }
        let size = (width.ceil() as u32, height.ceil() as u32);
        Ok(Canvas { size, fine: vec![255; 3 * (size.0 * FINE * size.1 * FINE) as usize] })
    }

    /// Gives `paint` something to draw with.
    pub fn paint(&mut self, paint: impl FnOnce(&Brush<'_>) -> Result<(), String>) -> Result<(), String> {
        let (width, height) = self.size;
        let brush =
            Brush(BitMapBackend::with_buffer(&mut self.fine, (width * FINE, height * FINE)).into_drawing_area());
        paint(&brush)
    }

    /// Averages the fine pixels and writes a PNG.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let failed = |why: String| format!("{}: could not be written ({why})", path.display());
        if path.extension().is_none_or(|extension| extension != "png") {
            return Err(failed("the name must end in .png".into()));
        }
        let file = File::create(path).map_err(|e| failed(e.to_string()))?;
        let (width, height) = self.size;
        let mean = |x: u32, y: u32, channel: u32| {
            let fine = (0..FINE * FINE).map(|n| (x * FINE + n % FINE, y * FINE + n / FINE));
            let sum: u32 =
                fine.map(|(x, y)| u32::from(self.fine[(3 * (y * width * FINE + x) + channel) as usize])).sum();
            ((sum + FINE * FINE / 2) / (FINE * FINE)) as u8
        };
        let pixels: Vec<u8> = (0..3 * width * height).map(|n| mean(n / 3 % width, n / 3 / width, n % 3)).collect();
        // plotters' own encoder hardly compresses.
        let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Best);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|e| failed(e.to_string()))
    }
}

/// Draws on a [`Canvas`].
pub struct Brush<'a>(DrawingArea<BitMapBackend<'a>, Shift>);

impl Brush<'_> {
    /// A filled rectangle between two corners.
    pub fn rectangle(&self, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result<(), String> {
        self.0.draw(&Rectangle::new([fine(from), fine(to)], color.filled())).map_err(|e| format!("picture: {e}"))
    }

    /// A line through points, so many pixels wide.
    #[allow(dead_code, reason = "not every program that draws has curves")]
    pub fn line(&self, points: &[(f64, f64)], width: f64, color: RGBColor) -> Result<(), String> {
        let style = color.stroke_width((width * f64::from(FINE)).round() as u32);
        let points: Vec<(i32, i32)> = points.iter().map(|&point| fine(point)).collect();
        self.0.draw(&PathElement::new(points, style)).map_err(|e| format!("picture: {e}"))
    }

    /// A filled circle.
    #[allow(dead_code, reason = "as for lines")]
    pub fn dot(&self, at: (f64, f64), radius: f64, color: RGBColor) -> Result<(), String> {
        let circle = Circle::new(fine(at), radius * f64::from(FINE), color.filled());
        self.0.draw(&circle).map_err(|e| format!("picture: {e}"))
    }

    /// A text whose letters stand on `y`, aligned at `x`.
    pub fn text(&self, text: &str, ink: Ink, at: (f64, f64), align: Align) -> Result<(), String> {
        // plotters puts the baseline half the size below the top.
        self.write(text, ink, (at.0, at.1 - ink.size / 2.0), align, FontTransform::None)
    }

    /// A text that reads upwards, whose letters stand on `x`, aligned at `y`.
    pub fn upwards(&self, text: &str, ink: Ink, at: (f64, f64), align: Align) -> Result<(), String> {
        self.write(text, ink, (at.0 - ink.size / 2.0, at.1), align, FontTransform::Rotate270)
    }

    fn write(
        &self,
        text: &str,
        ink: Ink,
        at: (f64, f64),
        align: Align,
        transform: FontTransform,
    ) -> Result<(), String> {
        let along = match align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        let style = TextStyle::from((ink.font, ink.size * f64::from(FINE)))
            .color(&ink.color)
            .transform(transform)
            .pos(Pos::new(along, VPos::Top));
        self.0.draw_text(text, &style, fine(at)).map_err(|e| format!("picture: {e}"))
    }
}

fn fine(at: (f64, f64)) -> (i32, i32) {
    ((at.0 * f64::from(FINE)).round() as i32, (at.1 * f64::from(FINE)).round() as i32)
}
