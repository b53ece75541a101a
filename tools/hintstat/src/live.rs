// SPDX-License-Identifier: GPL-2.0

//! The live view.

use crate::show::{size, status};
use crate::source::{Guest, Snapshot};
use anyhow::Result;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Sparkline};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// As many as the widest terminal shows.
const KEPT: usize = 1024;

/// A figure over time.
struct Series {
    name: &'static str,
    color: Color,
    /// Shown beside the name: what the latest value is.
    unit: &'static str,
    values: VecDeque<u64>,
}

impl Series {
    fn new(name: &'static str, unit: &'static str, color: Color) -> Self {
        Self {
            name,
            color,
            unit,
            values: VecDeque::new(),
        }
    }

    fn push(&mut self, value: u64) {
        if self.values.len() == KEPT {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }
}

/// All that is on the screen.
pub struct View {
    now: Option<Snapshot>,
    when: Instant,
    error: Option<String>,
    series: [Series; 5],
}

/// How much a counter has grown, for a second.
fn rate(before: u64, now: u64, elapsed: Duration) -> u64 {
    // The module may have been loaded anew.
    let grown = now.saturating_sub(before) as f64;
    (grown / elapsed.as_secs_f64().max(1e-3)) as u64
}

impl Default for View {
    fn default() -> Self {
        Self {
            now: None,
            when: Instant::now(),
            error: None,
            series: [
                Series::new("backlog", "", Color::Yellow),
                Series::new("isolated", "", Color::Cyan),
                Series::new("hinted", "/s", Color::Green),
                Series::new("refaults", "/s", Color::Red),
                Series::new("free", "", Color::Blue),
            ],
        }
    }
}

impl View {
    /// The next look.
    pub fn take(&mut self, looked: Result<Snapshot>, when: Instant) {
        let now = match looked {
            Ok(now) => now,
            Err(error) => {
                self.error = Some(format!("{error:#}"));
                self.now = None;
                return;
            }
        };
        let elapsed = when - self.when;
        let (hinted, refaults) = self.now.as_ref().map_or((0, 0), |before| {
            (
                rate(before.stats.hinted_kb, now.stats.hinted_kb, elapsed),
                rate(
                    before.stats.offline_used_kb,
                    now.stats.offline_used_kb,
                    elapsed,
                ),
            )
        });
        let values = [
            now.stats.backlog_kb,
            now.stats.isolated_kb,
            hinted,
            refaults,
            now.memory.free_kb,
        ];
        for (series, value) in self.series.iter_mut().zip(values) {
            series.push(value);
        }
        self.error = None;
        self.when = when;
        self.now = Some(now);
    }

    pub fn draw(&self, frame: &mut Frame) {
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_head(frame, head);
        let areas = Layout::vertical([Constraint::Fill(1); 5]).split(body);
        for (series, area) in self.series.iter().zip(areas.iter()) {
            draw_series(frame, series, *area);
        }
        frame.render_widget(Paragraph::new("q: quit").dim(), foot);
    }

    fn draw_head(&self, frame: &mut Frame, area: Rect) {
        let lines = match (&self.now, &self.error) {
            (Some(now), _) => vec![
                Line::from(format!("status {}", status(now))).bold(),
                Line::from(format!(
                    "requests {}  acks {}  errors {}  stalls {}  longest answer {:.1} ms",
                    now.stats.requests,
                    now.stats.acks,
                    now.stats.errors,
                    now.stats.stalls,
                    now.stats.ack_us_max as f64 / 1000.0
                )),
                Line::from(format!(
                    "hinted {}  rehinted {}  refaults {}  isolated at most {}",
                    size(now.stats.hinted_kb),
                    size(now.stats.rehinted_kb),
                    size(now.stats.offline_used_kb),
                    size(now.stats.isolated_peak_kb)
                )),
            ],
            (None, Some(error)) => vec![
                Line::from("page_hinting cannot be read").bold().red(),
                Line::from(error.clone()),
            ],
            (None, None) => vec![],
        };
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// The latest values, as many as there is room for, with the greatest beside the name.
fn draw_series(frame: &mut Frame, series: &Series, area: Rect) {
    let width = usize::from(area.width);
    let shown: Vec<u64> = series
        .values
        .iter()
        .skip(series.values.len().saturating_sub(width))
        .copied()
        .collect();
    let latest = shown.last().copied().unwrap_or(0);
    let most = shown.iter().copied().max().unwrap_or(0);
    let title = format!(
        " {} {}{}, at most {}{} ",
        series.name,
        size(latest),
        series.unit,
        size(most),
        series.unit
    );
    frame.render_widget(
        Sparkline::default()
            .block(
                Block::new()
                    .borders(ratatui::widgets::Borders::TOP)
                    .title(title),
            )
            .data(&shown)
            .style(Style::new().fg(series.color)),
        area,
    );
}

/// Whether the user wants to leave; waits for a key until then.
fn is_over(until: Instant) -> Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else {
            continue;
        };
        let ends = match key.code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
            _ => false,
        };
        if ends && key.kind == KeyEventKind::Press {
            return Ok(true);
        }
    }
}

pub fn run(guest: &Guest, interval: Duration) -> Result<()> {
    let mut terminal = ratatui::try_init()?;
    let mut view = View::default();
    let outcome = loop {
        let when = Instant::now();
        view.take(guest.snapshot(), when);
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            break Err(error.into());
        }
        match is_over(when + interval) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    outcome
}
