// SPDX-License-Identifier: GPL-2.0

//! Pictures: what is returned against what that costs, and the memory of a fleet.

use crate::fleet::{BIN_NS, Fleet};
use crate::guest::SECOND;
use crate::hinter::Kind;
use crate::report::Row;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;

const FONT: &str = "sim";
const INK: RGBColor = RGBColor(0x40, 0x40, 0x40);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn color(hinter: &str) -> RGBColor {
    let colors = [
        RGBColor(0x80, 0x80, 0x80),
        RGBColor(0xc0, 0x20, 0x20),
        RGBColor(0xe0, 0x90, 0x90),
        RGBColor(0x1f, 0x3f, 0xa8),
        RGBColor(0x2f, 0x7f, 0xd8),
        RGBColor(0x30, 0xa0, 0xa0),
        RGBColor(0x60, 0xa0, 0x30),
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

/// A panel for each workload: the share of free memory that is returned over the cost of reuse.
pub fn trade(path: &Path, rows: &[Row]) -> Result<()> {
    const COLUMNS: usize = 4;
    let workloads = rows.chunk_by(|a, b| a.workload == b.workload);
    let panels: Vec<_> = workloads.collect();
    let lines = (panels.len() + 1).div_ceil(COLUMNS);
    let root = open(
        path,
        (1480, 60 + 330 * lines as u32),
        "memory returned, of what the guest would keep, over what reuse costs",
    )?;
    let mut areas = root.split_evenly((lines, COLUMNS)).into_iter();

    for (rows, area) in panels.iter().zip(areas.by_ref()) {
        let widest = rows
            .iter()
            .map(|row| row.of_time * 100.0)
            .fold(0.0, f64::max);
        let right = widest.max(0.1) * 1.12;
        let mut chart = ChartBuilder::on(&area)
            .caption(&rows[0].workload, (FONT, 19))
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(50)
            .build_cartesian_2d(-0.04 * right..right, -4.0..104.0)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_labels(5)
            .y_labels(6)
            .x_desc("reuse, % of the time")
            .y_desc("returned, %")
            .x_label_formatter(&|x| {
                if right < 0.5 {
                    format!("{x:.2}")
                } else {
                    format!("{x:.1}")
                }
            })
            .y_label_formatter(&|y| format!("{y:.0}"))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .draw()?;
        // The module last, so that it is not hidden.
        for row in rows.iter().rev() {
            let at = (row.of_time * 100.0, row.returned_share * 100.0);
            chart.draw_series([Circle::new(at, 6, color(&row.hinter).filled())])?;
        }
    }
    if let Some(area) = areas.next() {
        for (i, row) in panels.first().into_iter().copied().flatten().enumerate() {
            let y = 40 + 32 * i as i32;
            area.draw(&Circle::new((40, y + 8), 6, color(&row.hinter).filled()))?;
            let style = (FONT, 18).into_font().color(&INK);
            area.draw(&Text::new(row.hinter.clone(), (58, y), style))?;
        }
    }
    root.present()?;
    Ok(())
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
        all.push(("what the hosts have", INK, 1, capacity));
    }
    lines(&left, "memory that the hosts have behind guests", &all)?;
    lines(&right, "of it, memory that is free in the guests", &free)?;
    root.present()?;
    Ok(())
}

fn lines(area: &Area<'_>, name: &str, lines: &[Line<'_>]) -> Result<()> {
    let hours = BIN_NS as f64 / (3600 * SECOND) as f64;
    let bins = lines
        .iter()
        .map(|line| line.3.len())
        .max()
        .unwrap_or(0)
        .max(1);
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
        .x_desc("hours")
        .y_desc("GiB")
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
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(INK)
        .label_font((FONT, 15))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{self, Config};
    use crate::guest::Host;
    use crate::report::{self, Case};
    use crate::workload;

    #[test]
    fn pictures_are_drawn_whatever_came_out() {
        let dir = tempfile::tempdir().unwrap();
        let drawn = |name: &str| {
            let png = std::fs::read(dir.path().join(name)).unwrap();
            png.starts_with(b"\x89PNG") && png.len() > 5000
        };
        let case = Case {
            name: "burst".into(),
            zones: report::zones(1024),
            until: 20 * SECOND,
            workload: &|| workload::burst(512),
        };

        trade(
            &dir.path().join("trade.png"),
            &report::compare(&Host::TCG, &case, &Kind::ALL),
        )
        .unwrap();
        assert!(drawn("trade.png"));
        let config = Config {
            guests: 2,
            hours: 1,
            seed: 1,
        };
        let run = |kind| fleet::run(&Host::TCG, &config, kind, &|| ()).unwrap();
        let fleets: Vec<_> = Kind::ALL.into_iter().map(run).collect();
        super::fleet(&dir.path().join("fleet.png"), &fleets, "two", 4.0).unwrap();
        super::fleet(&dir.path().join("none.png"), &[], "none", 4.0).unwrap();
        assert!(drawn("fleet.png") && drawn("none.png"));
    }
}
