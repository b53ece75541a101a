// SPDX-License-Identifier: GPL-2.0

//! A snapshot as text, as JSON and as OpenMetrics.

use crate::source::Snapshot;
use anyhow::Result;
use std::fmt::Write;

/// The words that a status may be.
const STATUSES: [&str; 6] = ["no-queue", "stalled", "off", "hinting", "paced", "idle"];

/// KiB as people read them.
pub fn size(kb: u64) -> String {
    match kb {
        0..10_240 => format!("{kb} KiB"),
        10_240..10_485_760 => format!("{} MiB", kb / 1024),
        _ => format!("{:.1} GiB", kb as f64 / 1_048_576.0),
    }
}

pub fn status(snapshot: &Snapshot) -> String {
    match snapshot.stalled_s {
        Some(seconds) => format!("{} for {seconds} s", snapshot.status),
        None => snapshot.status.clone(),
    }
}

/// Two columns of names and values.
pub fn text(snapshot: &Snapshot) -> String {
    let memory = snapshot.memory;
    let mut lines = vec![
        ("status", status(snapshot)),
        ("free", size(memory.free_kb)),
        (
            "eligible",
            format!(
                "{} in blocks of order {} and above",
                size(memory.eligible_kb),
                snapshot.knobs.min_order
            ),
        ),
    ];
    let numbers = [snapshot.stats.entries(), snapshot.knobs.entries()].concat();
    lines.extend(
        numbers
            .iter()
            .map(|(name, value)| (*name, value.to_string())),
    );
    lines
        .iter()
        .map(|(name, value)| format!("{name:<22} {value}\n"))
        .collect()
}

pub fn json(snapshot: &Snapshot) -> Result<String> {
    Ok(serde_json::to_string_pretty(snapshot)? + "\n")
}

/// A metric's name without its unit, the unit, and what of it a value is in.
fn unit(name: &str) -> (&str, &'static str, f64) {
    if let Some(stem) = name.strip_suffix("_kb") {
        (stem, "bytes", 1024.0)
    } else if let Some(stem) = name.strip_suffix("_us_max") {
        (stem, "max_seconds", 1e-6)
    } else if let Some(stem) = name.strip_suffix("_ms") {
        (stem, "seconds", 1e-3)
    } else {
        (name, "", 1.0)
    }
}

/// Whether a statistic only grows until the module goes.
fn is_counter(name: &str) -> bool {
    !matches!(
        name,
        "backlog_kb" | "kept_kb" | "isolated_kb" | "isolated_peak_kb" | "ack_us_max"
    )
}

fn metric(out: &mut String, name: &str, value: u64, counts: bool, help: &str) {
    let (stem, unit, factor) = unit(name);
    let name = match unit {
        "" => format!("page_hinting_{stem}"),
        _ => format!("page_hinting_{stem}_{unit}"),
    };
    let (kind, suffix) = if counts {
        ("counter", "_total")
    } else {
        ("gauge", "")
    };
    // Written to a String, which does not fail.
    let _ = writeln!(out, "# TYPE {name} {kind}");
    let _ = writeln!(out, "# HELP {name} {help}");
    let _ = writeln!(out, "{name}{suffix} {}", value as f64 * factor);
}

/// Base units, as OpenMetrics wants them. Only types that the text format of Prometheus has too.
pub fn openmetrics(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# TYPE page_hinting_status gauge");
    let _ = writeln!(
        out,
        "# HELP page_hinting_status 1 for the status that it is."
    );
    for word in STATUSES {
        let is = u64::from(word == snapshot.status);
        let _ = writeln!(out, "page_hinting_status{{status=\"{word}\"}} {is}");
    }
    metric(
        &mut out,
        "stalled",
        snapshot.stalled_s.unwrap_or(0),
        false,
        "Seconds since the host has not answered; 0 if it does.",
    );
    for (name, value) in snapshot.stats.entries() {
        let help = format!("stats/{name}, see the module's ABI document.");
        metric(&mut out, name, value, is_counter(name), &help);
    }
    for (name, value) in snapshot.knobs.entries() {
        let help = format!("The knob {name}.");
        metric(&mut out, name, value, false, &help);
    }
    for (name, value, help) in [
        (
            "free_kb",
            snapshot.memory.free_kb,
            "Memory on the free lists.",
        ),
        (
            "eligible_kb",
            snapshot.memory.eligible_kb,
            "Of that, in blocks of min_order and above.",
        ),
    ] {
        metric(&mut out, name, value, false, help);
    }
    out.push_str("# EOF\n");
    out
}
