// SPDX-License-Identifier: GPL-2.0

//! Pictures: cost over that of the optimum, and the memory of a fleet.

use crate::fleet::{BIN_NS, Fleet};
use crate::guest::SECOND;
use crate::hinter::Kind;
use crate::merit::{self, Row, summary};
use crate::meter::{WORTH_NAMES, WORTHS};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::path::Path;

const FONT: &str = "sim";
const INK: RGBColor = RGBColor(0x40, 0x40, 0x40);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn color(hinter: &str) -> RGBColor {
    let colors = [
        RGBColor(0xc0, 0x20, 0x20),
        RGBColor(0xe0, 0x90, 0x90),
        RGBColor(0x1f, 0x3f, 0xa8),
        RGBColor(0x2f, 0x7f, 0xd8),
        RGBColor(0x30, 0xa0, 0xa0),
        RGBColor(0x60, 0xa0, 0x30),
        RGBColor(0x80, 0x80, 0x80),
    ];
    let mut kinds = Kind::ALL.into_iter().zip(colors);

    kinds
        .find(|(kind, _)| kind.name() == hinter)
        .map_or(BLACK, |(_, color)| color)
}

fn open<'a>(path: &'a Path, size: (u32, u32), title: &str) -> Result<Area<'a>> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font is broken"))?;
    let root = BitMapBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    Ok(root.margin(10, 6, 6, 6).titled(title, (FONT, 26))?)
}

/// Cost over that of the optimum: of each load where memory is worth 1 s, and on average for each
/// worth.
pub fn merit(path: &Path, rows: &[Row], title: &str) -> Result<()> {
    let root = open(path, (1480, 660), title)?;
    let (left, right) = root.split_horizontally(900);
    let hinters = merit::hinters(rows);
    let most = hinters.iter().map(|hinter| summary(rows, hinter, 1).2);
    let top = most.fold(10.0, f64::max) * 1.4;

    loads(&left, rows, &hinters, top)?;
    means(&right, rows, &hinters)?;
    root.present()?;
    Ok(())
}

fn ratio_label(ratio: &f64) -> String {
    format!("{}", (ratio * 10.0).round() / 10.0)
}

/// A column for each hinter, with a dot for each load and a bar at the mean.
fn loads(area: &Area<'_>, rows: &[Row], hinters: &[&str], top: f64) -> Result<()> {
    let (n, ..) = summary(rows, hinters.first().unwrap_or(&""), 1);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("each of n = {n} workloads; bar and figure: geometric mean"),
            (FONT, 19),
        )
        .margin(10)
        .x_label_area_size(58)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..hinters.len() as f64, (0.9..top).log_scale())?;

    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(0)
        .y_desc("cost / optimum, memory worth 1 s (log scale)")
        .y_label_formatter(&ratio_label)
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;
    for (i, hinter) in hinters.iter().enumerate() {
        let (_, mean, _) = summary(rows, hinter, 1);
        let of = rows.iter().filter(|row| row.hinter == *hinter);
        let ratios: Vec<f64> = of
            .map(|row| row.ratio(1))
            .filter(|r| r.is_finite())
            .collect();
        let x = i as f64 + 0.5;

        // Side by side, so that dots of the same height can be told apart.
        chart.draw_series(ratios.iter().enumerate().map(|(j, ratio)| {
            let spread = (j as f64 / ratios.len() as f64 - 0.5) * 0.4;
            Circle::new((x + spread, *ratio), 4, color(hinter).mix(0.75).filled())
        }))?;
        let bar = [(x - 0.3, mean), (x + 0.3, mean)];
        chart.draw_series([PathElement::new(bar, BLACK.stroke_width(2))])?;
        let (x, y) = chart.backend_coord(&(x, 0.9));
        let (_, mean_y) = chart.backend_coord(&(0.0, mean));
        let (x0, y0) = area.get_base_pixel();
        let text = |text: &str, x: i32, y: i32, size: i32| {
            let style = (FONT, size).into_font().color(&INK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Center));
            area.draw(&Text::new(text.to_owned(), (x - x0, y - y0), style))
        };
        let (name, ms) = hinter.split_once(", ").unwrap_or((hinter, ""));
        text(name, x, y + 16, 16)?;
        text(ms, x, y + 36, 16)?;
        text(&format!("{mean:.2}"), x + 52, mean_y - 12, 17)?;
    }
    Ok(())
}

/// A line for each hinter: the geometric mean over what memory is worth.
fn means(area: &Area<'_>, rows: &[Row], hinters: &[&str]) -> Result<()> {
    let mean = |hinter: &str, worth| summary(rows, hinter, worth).1;
    let most = hinters
        .iter()
        .flat_map(|hinter| (0..WORTHS.len()).map(|i| mean(hinter, i)));
    let top = most.fold(2.0, f64::max) * 12.0;
    let mut chart = ChartBuilder::on(area)
        .caption("geometric mean over the worth of memory", (FONT, 19))
        .margin(10)
        .x_label_area_size(58)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.2..WORTHS.len() as f64 - 0.8, (0.9..top).log_scale())?;

    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(WORTHS.len())
        .x_desc("one refault costs as much as keeping the memory for")
        .y_desc("cost / optimum (log scale)")
        .x_label_formatter(&|i| WORTH_NAMES[i.round() as usize % WORTHS.len()].into())
        .y_label_formatter(&ratio_label)
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;
    for hinter in hinters {
        let style = color(hinter).stroke_width(2);
        let points = (0..WORTHS.len()).map(|i| (i as f64, mean(hinter, i)));
        chart
            .draw_series(LineSeries::new(points, style).point_size(3))?
            .label(*hinter)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    legend(&mut chart)
}

/// Writes the names of the series into the upper left corner.
fn legend<'a, X: Ranged, Y: Ranged>(
    chart: &mut ChartContext<'a, BitMapBackend<'a>, Cartesian2d<X, Y>>,
) -> Result<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(INK)
        .label_font((FONT, 15))
        .draw()
        .map_err(|error| anyhow!("{error}"))
}

/// A line: its name, its color, how wide it is, and GiB for each bin.
type Line<'a> = (&'a str, RGBColor, u32, Vec<f64>);

/// The memory of a fleet over the day: all of it, and what of it is free.
pub fn fleet(path: &Path, fleets: &[Fleet], title: &str, capacity_gib: f64) -> Result<()> {
    let root = open(path, (1480, 620), title)?;
    let (left, right) = root.split_horizontally(740);
    let mut all: Vec<Line<'_>> = Vec::new();
    let mut free: Vec<Line<'_>> = Vec::new();

    for fleet in fleets {
        let color = color(&fleet.hinter);
        let kept = fleet.resident_gib.iter().zip(&fleet.used_gib);

        all.push((&fleet.hinter, color, 2, fleet.resident_gib.clone()));
        if fleet.hinter != Kind::Off.name() {
            let kept = kept.map(|(resident, used)| resident - used).collect();
            free.push((&fleet.hinter, color, 2, kept));
        }
    }
    if let Some(fleet) = fleets.first() {
        let capacity = vec![capacity_gib; fleet.used_gib.len()];
        all.push(("in use", BLACK, 1, fleet.used_gib.clone()));
        all.push(("memory of the hosts", INK, 1, capacity));
    }
    lines(&left, "memory that the hosts have behind guests", &all)?;
    lines(&right, "of it, memory that is free in the guests", &free)?;
    root.present()?;
    Ok(())
}

fn lines(area: &Area<'_>, name: &str, lines: &[Line<'_>]) -> Result<()> {
    let hours = BIN_NS as f64 / (3600 * SECOND) as f64;
    let bins = lines.iter().map(|line| line.3.len()).max().unwrap_or(1);
    let most = lines.iter().flat_map(|line| &line.3).copied();
    let top = most.fold(1.0, f64::max) * 1.35;
    let mut chart = ChartBuilder::on(area)
        .caption(name, (FONT, 18))
        .margin(10)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(0.0..bins as f64 * hours, 0.0..top)?;

    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("time of day (hours)")
        .y_desc("memory (GiB)")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .draw()?;
    for (name, color, width, gib) in lines {
        let points = gib.iter().enumerate();
        let points = points.map(|(i, gib)| ((i as f64 + 0.5) * hours, *gib));
        let style = color.stroke_width(*width);
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    legend(&mut chart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{self, Config};
    use crate::guest::Host;
    use crate::load;

    #[test]
    fn pictures_are_drawn_whatever_came_out() {
        let dir = tempfile::tempdir().unwrap();
        let drawn = |name: &str| {
            let png = std::fs::read(dir.path().join(name)).unwrap();
            png.starts_with(b"\x89PNG") && png.len() > 5000
        };
        let loads = [
            load::burst(&Host::TCG, 512),
            load::churn(&Host::TCG, 1, 64, 200, 20),
        ];
        let rows = merit::compare(&Host::TCG, &loads, &Kind::ALL, 0);

        merit(&dir.path().join("merit.png"), &rows, "two").unwrap();
        assert!(drawn("merit.png"));
        let config = Config {
            guests: 2,
            hours: 1,
            seed: 1,
        };
        let fleets = fleet::run(&Host::TCG, &config, &Kind::ALL, &|| ());
        super::fleet(&dir.path().join("fleet.png"), &fleets, "two", 4.0).unwrap();
        super::fleet(&dir.path().join("none.png"), &[], "none", 4.0).unwrap();
        assert!(drawn("fleet.png") && drawn("none.png"));
    }
}
