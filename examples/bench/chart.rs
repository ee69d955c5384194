//! TFLOP/s by case, ours and others', as bars: a panel a storage type, for their scales are far apart.

use std::path::Path;

use plotters::style::RGBColor;
use wgpu_attention::DType;

use crate::against::{Compared, Comparison, three_digits};
use crate::canvas::{Align, Brush, CODE, Canvas, Ink, WORDS};

const WIDTH: f64 = 1000.0;
/// Where bars begin and where the longest ends; numbers follow it.
const LEFT: f64 = 310.0;
const RIGHT: f64 = 920.0;
/// The legend's first line, a line of it, and what lies between it and the bars.
const LEGEND: f64 = 62.0;
const LINE: f64 = 20.0;
const BELOW_LEGEND: f64 = 24.0;
const BAR: f64 = 13.0;
/// Between cases, and between panels.
const GAP: f64 = 9.0;
const PANEL: f64 = 30.0;

const DARK: RGBColor = RGBColor(0x1d, 0x22, 0x33);
const SOFT: RGBColor = RGBColor(0x5f, 0x66, 0x75);
const OURS: RGBColor = RGBColor(0xc2, 0x4d, 0x2c);
/// Of peers in the order in which they come; further ones begin again.
const PEERS: [RGBColor; 12] = [
    RGBColor(0x24, 0x45, 0x7c),
    RGBColor(0x3f, 0x8f, 0x8b),
    RGBColor(0x8a, 0xb0, 0xdc),
    RGBColor(0xb8, 0xbd, 0xc7),
    RGBColor(0x86, 0x6b, 0xa8),
    RGBColor(0xd0, 0xa2, 0x3c),
    RGBColor(0x6d, 0x8f, 0x4e),
    RGBColor(0xd9, 0x8c, 0xa6),
    RGBColor(0x7a, 0x5a, 0x3c),
    RGBColor(0x4b, 0xa3, 0xd1),
    RGBColor(0xb5, 0xc2, 0x55),
    RGBColor(0x50, 0x55, 0x60),
];

const SMALL: Ink = Ink { font: WORDS, size: 16.0, color: SOFT };
const NAME: Ink = Ink { font: CODE, size: 13.0, color: DARK };
const NUMBER: Ink = Ink { size: 12.0, ..NAME };

/// Draws the cases whose work is arithmetic; those that read memory alone have no height here.
pub fn draw(comparison: &Comparison, device: &str, path: &Path) -> Result<(), String> {
    let shown: Vec<&Compared> = comparison.cases.iter().filter(|compared| !compared.is_bound_by_memory()).collect();
    if shown.is_empty() {
        return Err("--plot: no case of this run is limited by arithmetic, and bars are of TFLOP/s".into());
    }
    let mut paths: Vec<&str> = Vec::new();
    for peer in shown.iter().flat_map(|compared| &compared.peers) {
        if !paths.contains(&peer.path.as_str()) {
            paths.push(&peer.path);
        }
    }
    let panels: Vec<(DType, Vec<&Compared>)> = [DType::F32, DType::F16]
        .map(|dtype| (dtype, shown.iter().copied().filter(|compared| compared.case.dtype == dtype).collect()))
        .into_iter()
        .filter(|(_, cases): &(_, Vec<_>)| !cases.is_empty())
        .collect();
    let height: f64 = panels.iter().map(|(_, cases)| PANEL + cases.iter().map(|case| tall(case)).sum::<f64>()).sum();
    let legend = legend(&paths);
    let bars = legend.last().map_or(LEGEND, |entry| entry.at.1) + BELOW_LEGEND;
    let mut canvas = Canvas::new(WIDTH, bars + height)?;
    canvas.paint(|brush| {
        let title = Ink { size: 20.0, color: DARK, ..SMALL };
        brush.text(&format!("TFLOP/s by case on {device}"), title, (24.0, 34.0), Align::Start)?;
        for Entry { at: (x, y), words, color } in legend {
            brush.rectangle((x, y - 11.0), (x + 12.0, y + 1.0), color)?;
            brush.text(words, SMALL, (x + 18.0, y), Align::Start)?;
        }
        let mut y = bars;
        for (dtype, cases) in &panels {
            y = panel(brush, y, *dtype, cases, &paths)? + PANEL;
        }
        Ok(())
    })?;
    canvas.save(path)
}

fn tall(compared: &Compared) -> f64 {
    BAR * (1 + compared.peers.len()) as f64 + GAP
}

fn color(paths: &[&str], path: &str) -> RGBColor {
    let n = paths.iter().position(|&known| known == path).expect("paths were gathered from the same cases");
    PEERS[n % PEERS.len()]
}

/// What a color means, and where that stands.
struct Entry<'a> {
    at: (f64, f64),
    words: &'a str,
    color: RGBColor,
}

/// In as many lines as it takes.
fn legend<'a>(paths: &[&'a str]) -> Vec<Entry<'a>> {
    let (mut x, mut y) = (24.0, LEGEND);
    let all = [("this library", OURS)].into_iter().chain(paths.iter().map(|path| (*path, color(paths, path))));
    let placed = all.map(|(words, color)| {
        let width = 34.0 + 7.8 * words.chars().count() as f64;
        if x + width > WIDTH {
            (x, y) = (24.0, y + LINE);
        }
        x += width;
        Entry { at: (x - width, y), words, color }
    });
    placed.collect()
}

/// The bars of one type, on one scale; returns where they end.
fn panel(brush: &Brush<'_>, top: f64, dtype: DType, cases: &[&Compared], paths: &[&str]) -> Result<f64, String> {
    let times = |compared: &Compared| -> Vec<f64> {
        [compared.ms].into_iter().chain(compared.peers.iter().map(|peer| peer.ms)).collect()
    };
    let largest = cases.iter().flat_map(|&case| times(case).into_iter().map(|ms| case.tflops(ms))).fold(0.0, f64::max);
    let mut y = top;
    for &compared in cases {
        let middle = y + BAR * (1 + compared.peers.len()) as f64 / 2.0;
        brush.text(&compared.case.name, NAME, (LEFT - 12.0, middle + 5.0), Align::End)?;
        let bars = [(compared.ms, OURS)].into_iter();
        for (ms, color) in bars.chain(compared.peers.iter().map(|peer| (peer.ms, color(paths, &peer.path)))) {
            let tflops = compared.tflops(ms);
            let end = LEFT + (RIGHT - LEFT) * tflops / largest;
            brush.rectangle((LEFT, y), (end, y + BAR - 2.0), color)?;
            brush.text(&three_digits(tflops), NUMBER, (end + 6.0, y + BAR - 3.0), Align::Start)?;
            y += BAR;
        }
        y += GAP;
    }
    brush.upwards(&dtype.to_string(), SMALL, (30.0, (top + y) / 2.0), Align::Middle)?;
    Ok(y)
}
