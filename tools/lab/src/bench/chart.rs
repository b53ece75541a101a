// SPDX-License-Identifier: GPL-2.0

//! Draws the report's pictures.

use super::config::Config;
use super::result::Results;
use crate::plot::{FONT, FOOT, register};
use anyhow::Result;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::Path;

const SIZE: (u32, u32) = (1280, 620);
/// Width of the legend.
const LEGEND: u32 = 200;
const TEXT: RGBColor = RGBColor(0x40, 0x40, 0x40);

/// The colour of a configuration in every picture.
pub fn color(config: Config) -> RGBColor {
    match config {
        Config::Host => RGBColor(0x80, 0x80, 0x80),
        Config::Off => RGBColor(0x50, 0x50, 0x50),
        Config::Upstream2000 => RGBColor(0xf2, 0xb1, 0x34),
        Config::Upstream250 => RGBColor(0xe0, 0x7b, 0x1a),
        Config::Upstream100 => RGBColor(0xc4, 0x4e, 0x1c),
        Config::Upstream0 => RGBColor(0x9c, 0x1f, 0x2e),
        Config::PageHintingIdle => RGBColor(0x7f, 0xb2, 0xe5),
        Config::PageHinting => RGBColor(0x1f, 0x5f, 0xa8),
        Config::UnpatchedOff => RGBColor(0x9a, 0xb0, 0x9a),
        Config::Unpatched2000 => RGBColor(0x5c, 0x8a, 0x5c),
    }
}

/// An axis.
pub struct Axis {
    pub label: String,
    pub is_log: bool,
}

/// Points, and what joins them.
pub struct Curve {
    pub label: String,
    pub color: RGBColor,
    pub points: Vec<(f64, f64)>,
    pub is_line: bool,
    pub has_dots: bool,
    /// Spreads: from the first point to the second.
    pub whiskers: Vec<[(f64, f64); 2]>,
}

impl Curve {
    /// A configuration's, a line without dots.
    pub fn line(config: Config, points: Vec<(f64, f64)>) -> Self {
        Curve {
            label: config.name().to_owned(),
            color: color(config),
            points,
            is_line: true,
            has_dots: false,
            whiskers: Vec::new(),
        }
    }

    /// A configuration's, dots that are not joined.
    pub fn dots(config: Config, points: Vec<(f64, f64)>) -> Self {
        Curve {
            is_line: false,
            has_dots: true,
            ..Self::line(config, points)
        }
    }
}

/// A picture of curves.
pub struct Chart {
    pub title: String,
    /// What it was measured with: [`super::result::Machine::caption`].
    pub caption: String,
    pub x: Axis,
    pub y: Axis,
    pub curves: Vec<Curve>,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// The picture's frame; what is in it is drawn by `body`.
fn frame(
    path: &Path,
    title: &str,
    caption: &str,
    legend: &[(&str, RGBColor)],
    body: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<()> {
    register()?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(10, 0, 0, 0).titled(title, (FONT, 26))?;
    let (upper, foot) = root.split_vertically(root.dim_in_pixel().1 - FOOT);
    let style = (FONT, 16).into_font().color(&TEXT);
    foot.draw(&Text::new(caption.to_owned(), (20, 4), style))?;
    let (left, right) = upper.split_horizontally(upper.dim_in_pixel().0 - LEGEND);
    for (i, (name, color)) in legend.iter().enumerate() {
        let y = 20 + 24 * i as i32;
        right.draw(&Rectangle::new([(0, y), (18, y + 12)], color.filled()))?;
        let style = (FONT, 15).into_font().color(&TEXT);
        right.draw(&Text::new((*name).to_owned(), (24, y - 2), style))?;
    }
    body(&left)?;
    root.present()?;
    Ok(())
}

/// Draws curves.
pub fn draw(path: &Path, chart: &Chart) -> Result<()> {
    let legend: Vec<_> = chart
        .curves
        .iter()
        .map(|curve| (&*curve.label, curve.color))
        .collect();
    frame(path, &chart.title, &chart.caption, &legend, |area| {
        let all = || {
            let whiskers = chart.curves.iter().flat_map(|curve| &curve.whiskers);
            let points = chart.curves.iter().flat_map(|curve| &curve.points);
            points.copied().chain(whiskers.flatten().copied())
        };
        let x = range(all().map(|point| point.0), chart.x.is_log);
        let y = range(all().map(|point| point.1), chart.y.is_log);
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(10)
            .margin_right(16)
            .x_label_area_size(60)
            .y_label_area_size(80);
        match (chart.x.is_log, chart.y.is_log) {
            (false, false) => curves(builder.build_cartesian_2d(x, y)?, chart),
            (true, false) => curves(builder.build_cartesian_2d(x.log_scale(), y)?, chart),
            (false, true) => curves(builder.build_cartesian_2d(x, y.log_scale())?, chart),
            (true, true) => curves(
                builder.build_cartesian_2d(x.log_scale(), y.log_scale())?,
                chart,
            ),
        }
    })
}

fn curves<'a, X, Y>(
    mut context: ChartContext<'a, BitMapBackend<'a>, Cartesian2d<X, Y>>,
    chart: &Chart,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    context
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| tick(*value))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;
    for curve in &chart.curves {
        let color = curve.color;
        let style = color.stroke_width(2);
        let points = || curve.points.iter().copied();
        if curve.is_line {
            context.draw_series(LineSeries::new(points(), style))?;
        }
        let spreads = curve.whiskers.iter();
        context.draw_series(spreads.map(|ends| PathElement::new(ends.to_vec(), style)))?;
        let size = if curve.has_dots { 5 } else { 0 };
        context.draw_series(points().map(|point| Circle::new(point, size, color.filled())))?;
    }
    Ok(())
}

/// Least, median and most of a bar. Without a median it never came to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub config: Config,
    pub median: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Values that are shown one by one.
    pub dots: Vec<f64>,
}

/// Groups of bars side by side.
pub struct Bars {
    pub title: String,
    pub caption: String,
    pub y: Axis,
    pub groups: Vec<(String, Vec<Bar>)>,
}

impl Bars {
    /// A metric of these cases of a part; a case that was not measured is left out.
    pub fn groups_of(
        results: &Results,
        part: &str,
        metric: &str,
        cases: &[String],
    ) -> Vec<(String, Vec<Bar>)> {
        let group = |case: &String| {
            let bars: Vec<_> = Config::ALL
                .into_iter()
                .filter_map(|config| results.row(part, case, config, metric))
                .filter(|row| !row.is_failed())
                .map(|row| Bar {
                    config: row.config,
                    median: row.median,
                    min: row.min,
                    max: row.max,
                    dots: Vec::new(),
                })
                .collect();
            (!bars.is_empty()).then(|| (case.clone(), bars))
        };
        cases.iter().filter_map(group).collect()
    }
}

/// Draws bars.
pub fn draw_bars(path: &Path, bars: &Bars) -> Result<()> {
    let is_shown = |config: &Config| {
        let mut shown = bars.groups.iter().flat_map(|(_, bars)| bars);
        shown.any(|bar| bar.config == *config)
    };
    let legend: Vec<_> = Config::ALL
        .into_iter()
        .filter(is_shown)
        .map(|config| (config.name(), color(config)))
        .collect();
    frame(path, &bars.title, &bars.caption, &legend, |area| {
        let all = bars.groups.iter().flat_map(|(_, bars)| bars);
        let values = all.flat_map(|bar| [bar.median, bar.min, bar.max].into_iter().flatten());
        let mut y = range(values, bars.y.is_log);
        if !bars.y.is_log {
            y.start = y.start.min(0.0);
        }
        let x = 0.0..bars.groups.len().max(1) as f64;
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(10)
            .margin_right(16)
            .x_label_area_size(60)
            .y_label_area_size(80);
        match bars.y.is_log {
            false => columns(builder.build_cartesian_2d(x, y.clone())?, area, bars, &y),
            true => columns(
                builder.build_cartesian_2d(x, y.clone().log_scale())?,
                area,
                bars,
                &y,
            ),
        }
    })
}

fn columns<'a, Y>(
    mut context: ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    area: &Area<'_>,
    bars: &Bars,
    range: &Range<f64>,
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    context
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(0)
        .y_desc(&bars.y.label)
        .y_label_formatter(&|value| tick(*value))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;
    let floor = if bars.y.is_log { range.start } else { 0.0 };
    for config in Config::ALL {
        let mut columns = Vec::new();
        let mut whiskers = Vec::new();
        let mut dots = Vec::new();
        for (i, (_, group)) in bars.groups.iter().enumerate() {
            let Some(k) = group.iter().position(|bar| bar.config == config) else {
                continue;
            };
            let width = 0.84 / group.len() as f64;
            let x = i as f64 + 0.08 + width * k as f64;
            let bar = &group[k];
            let top = bar.median.unwrap_or(range.end);
            let fill = match bar.median {
                Some(_) => color(config).filled(),
                // It never came to it: an empty bar that goes all the way up.
                None => color(config).stroke_width(2),
            };
            columns.push(Rectangle::new([(x, floor), (x + width * 0.9, top)], fill));
            if let (Some(min), Some(max)) = (bar.min, bar.max.or(Some(range.end))) {
                let middle = x + width * 0.45;
                whiskers.push(PathElement::new(vec![(middle, min), (middle, max)], BLACK));
            }
            let middle = x + width * 0.45;
            let values = bar.dots.iter();
            dots.extend(values.map(|value| Circle::new((middle, *value), 3, BLACK.filled())));
        }
        if !columns.is_empty() {
            context.draw_series(columns)?;
            context.draw_series(whiskers)?;
            context.draw_series(dots)?;
        }
    }
    let style = (FONT, 16).into_font().color(&TEXT);
    let (xs, ys) = context.plotting_area().get_pixel_range();
    let (left, top) = area.get_base_pixel();
    let width = f64::from(xs.end - xs.start) / bars.groups.len().max(1) as f64;
    for (i, (name, _)) in bars.groups.iter().enumerate() {
        let x = xs.start - left + (width * (i as f64 + 0.5)) as i32;
        let style = style.pos(Pos::new(HPos::Center, VPos::Top));
        // A name of several words, between commas, gets as many lines.
        for (line, word) in name.split(", ").enumerate() {
            let y = ys.end - top + 6 + 17 * line as i32;
            area.draw(&Text::new(word.to_owned(), (x, y), style.clone()))?;
        }
    }
    Ok(())
}

/// From the least to the most, and a bit more.
fn range(values: impl Iterator<Item = f64>, is_log: bool) -> Range<f64> {
    let (min, max) = values
        .filter(|value| value.is_finite() && (!is_log || *value > 0.0))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
            (min.min(value), max.max(value))
        });
    match (min <= max, is_log) {
        (false, false) => 0.0..1.0,
        (false, true) => 0.1..1.0,
        (true, true) => min / 1.5..max * 1.5,
        (true, false) => {
            let span = (max - min).max(max.abs() / 10.0).max(1e-9);
            let start = if min >= 0.0 { 0.0 } else { min - span * 0.1 };
            start..max + span * 0.1
        }
    }
}

/// A number on an axis.
fn tick(value: f64) -> String {
    let text = format!("{value:.4}");
    match value.abs() {
        v if v >= 10.0 => format!("{value:.0}"),
        v if v > 0.0 && v < 0.000_1 => format!("{value:.0e}"),
        _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_is_shown() {
        assert_eq!(range([].into_iter(), false), 0.0..1.0);
        let log = range([0.01, 10.0].into_iter(), true);
        assert!(log.start < 0.01 && log.start > 0.0 && log.end > 10.0);
        let linear = range([-2.0, 10.0, f64::INFINITY].into_iter(), false);
        assert!(linear.start < -2.0 && linear.end > 10.0 && linear.end.is_finite());
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [0.0, 0.000_01, 0.01, 1.5, 250.0].map(tick),
            ["0", "1e-5", "0.01", "1.5", "250"]
        );
    }

    #[test]
    fn pictures_are_drawn_whatever_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let axis = |is_log| Axis {
            label: "axis".into(),
            is_log,
        };
        for (i, points) in [vec![], vec![(0.5, 2.0)], vec![(0.0, -1.0), (10.0, 3.0)]]
            .into_iter()
            .enumerate()
        {
            for (x, y) in [(false, false), (true, false), (false, true), (true, true)] {
                let path = dir.path().join(format!("{i}-{x}-{y}.png"));
                let chart = Chart {
                    title: "title".into(),
                    caption: "caption".into(),
                    x: axis(x),
                    y: axis(y),
                    curves: vec![Curve::dots(Config::PageHinting, points.clone())],
                };
                draw(&path, &chart).unwrap();
                let png = std::fs::read(&path).unwrap();
                assert!(png.starts_with(b"\x89PNG") && png.len() > 3000);
            }
        }
        for is_log in [false, true] {
            let bar = |median: Option<f64>| Bar {
                config: Config::Off,
                median,
                min: Some(1.0),
                max: median,
                dots: median.into_iter().collect(),
            };
            let bars = Bars {
                title: "title".into(),
                caption: "caption".into(),
                y: axis(is_log),
                groups: vec![
                    ("a".into(), vec![bar(Some(2.0))]),
                    ("b".into(), vec![bar(None)]),
                ],
            };
            let path = dir.path().join("bars.png");
            draw_bars(&path, &bars).unwrap();
            assert!(std::fs::read(&path).unwrap().len() > 3000);
        }
    }
}
