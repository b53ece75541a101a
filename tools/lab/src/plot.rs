// SPDX-License-Identifier: GPL-2.0

//! Draws the demo's picture.

use crate::returned::Sample;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::ops::Range;
use std::path::Path;

/// What to draw.
pub struct Picture<'a> {
    pub title: String,
    pub caption: String,
    pub samples: &'a [Sample],
    /// When the memory was free, in seconds since the start of the sampling; the
    /// axis has its 0 there.
    pub freed_s: f64,
    /// Moments in seconds after the free, and what they are called, the weightiest
    /// first.
    pub marks: Vec<(f64, String)>,
    /// From when to when most happened, in seconds after the free.
    pub detail: Range<f64>,
}

const SIZE: (u32, u32) = (1280, 620);
const RAM: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const PROCESS: RGBColor = RGBColor(0xd0, 0x7a, 0x1c);
const MARK: RGBColor = RGBColor(0x40, 0x40, 0x40);
/// Name of the font, once it is registered.
pub const FONT: &str = "lab";
/// Height of the line below a picture.
pub const FOOT: u32 = 30;

/// Makes the font known.
pub fn register() -> Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font is broken"))
}

/// Draws the whole run on the left, the moment of the free on the right.
pub fn draw(path: &Path, picture: &Picture<'_>) -> Result<()> {
    register()?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root
        .margin(10, 0, 0, 0)
        .titled(&picture.title, (FONT, 26))?;
    let (body, foot) = root.split_vertically(root.dim_in_pixel().1 - FOOT);
    let caption = (FONT, 16).into_font().color(&MARK);
    foot.draw(&Text::new(picture.caption.clone(), (20, 4), caption))?;

    let points: Vec<_> = picture
        .samples
        .iter()
        .map(|sample| {
            let t = sample.at.as_secs_f64() - picture.freed_s;
            (t, mib(sample.ram_kb), mib(sample.process_kb))
        })
        .collect();
    let first = points.first().map_or(-1.0, |point| point.0);
    let last = points.last().map_or(1.0, |point| point.0);

    let (left, right) = body.split_horizontally(SIZE.0 * 55 / 100);
    panel(&left, picture, &points, first..last, "the whole run", true)?;
    panel(
        &right,
        picture,
        &points,
        picture.detail.clone(),
        "around the free",
        false,
    )?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<BitMapBackend<'_>, plotters::coord::Shift>,
    picture: &Picture<'_>,
    points: &[(f64, f64, f64)],
    range: Range<f64>,
    name: &str,
    has_legend: bool,
) -> Result<()> {
    let top = points
        .iter()
        .map(|point| point.1.max(point.2))
        .fold(0.0, f64::max)
        * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption(name, (FONT, 18))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(range.clone(), 0.0..top.max(1.0))?;
    let span = range.end - range.start;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds after the guest freed the memory")
        .y_desc("resident on the host (MiB)")
        .x_label_formatter(&|x| match span {
            s if s < 0.5 => format!("{x:.3}"),
            s if s < 5.0 => format!("{x:.2}"),
            _ => format!("{x:.0}"),
        })
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;

    // One sample more on either side, so that the lines reach the edges.
    let from = points
        .partition_point(|p| p.0 < range.start)
        .saturating_sub(1);
    let to = points
        .len()
        .min(points.partition_point(|p| p.0 <= range.end) + 1);
    let shown = &points[from..to];
    let clamp = |t: f64| t.clamp(range.start, range.end);
    let process = shown.iter().map(|p| (clamp(p.0), p.2));
    let ram = shown.iter().map(|p| (clamp(p.0), p.1));
    chart
        .draw_series(LineSeries::new(process, PROCESS.stroke_width(2)))?
        .label("QEMU process")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], PROCESS.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(ram, RAM.stroke_width(2)))?
        .label("guest RAM mapping")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RAM.stroke_width(2)));

    let style = (FONT, 15).into_font().color(&MARK);
    for (level, (t, label)) in legible(&picture.marks, &range).into_iter().enumerate() {
        chart.draw_series([PathElement::new([(t, 0.0), (t, top)], MARK)])?;
        let y = top * (0.86 - 0.045 * level as f64);
        let side = match t - range.start > span * 0.4 {
            true => HPos::Right,
            false => HPos::Left,
        };
        let style = style.pos(Pos::new(side, VPos::Top));
        chart.draw_series([Text::new(format!(" {label} "), (t, y), style)])?;
    }
    if has_legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(MARK)
            .label_font((FONT, 15))
            .draw()?;
    }
    Ok(())
}

/// The marks in this range, those that would lie on each other put together.
fn legible(marks: &[(f64, String)], range: &Range<f64>) -> Vec<(f64, String)> {
    let near = (range.end - range.start) / 50.0;
    let mut shown: Vec<(f64, String)> = Vec::new();
    for (t, label) in marks.iter().filter(|(t, _)| range.contains(t)) {
        match shown.iter_mut().find(|(other, _)| (t - other).abs() < near) {
            Some((_, text)) => *text += &format!(", {label}"),
            None => shown.push((*t, label.clone())),
        }
    }
    shown.sort_by(|a, b| a.0.total_cmp(&b.0));
    shown
}

fn mib(kb: u64) -> f64 {
    kb as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn marks_do_not_lie_on_each_other() {
        let marks = [(5.0, "a"), (0.0, "b"), (0.1, "c"), (20.0, "d")];
        let marks = marks.map(|(t, label)| (t, label.to_owned()));
        let text = |range| {
            let shown = legible(&marks, &range);
            shown
                .iter()
                .map(|(t, text)| format!("{t} {text}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(text(-1.0..10.0), ["0 b, c", "5 a"]);
        assert_eq!(text(-1.0..0.5), ["0 b", "0.1 c"]);
    }

    #[test]
    fn a_picture_is_drawn_whatever_came_back() {
        let dir = tempfile::tempdir().unwrap();
        let samples: Vec<_> = (0..500)
            .map(|i| Sample {
                at: Duration::from_millis(i * 10),
                ram_kb: if i < 250 { 2 << 20 } else { 1 << 17 },
                process_kb: 3 << 20,
            })
            .collect();
        for (name, samples, detail) in [
            ("back.png", &samples[..], -0.1..0.5),
            ("at-once.png", &samples[..], -0.001..0.001),
            ("empty.png", &[], -1.0..1.0),
        ] {
            let path = dir.path().join(name);
            let picture = Picture {
                title: "title".into(),
                caption: "caption".into(),
                samples,
                freed_s: 2.0,
                marks: vec![(0.0, "freed".into()), (0.4, "50 % back".into())],
                detail,
            };
            draw(&path, &picture).unwrap();
            let png = std::fs::read(&path).unwrap();
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{name}");
        }
    }
}
