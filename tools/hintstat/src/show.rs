// SPDX-License-Identifier: GPL-2.0

//! A snapshot as text and as JSON.

use crate::source::Snapshot;
use anyhow::Result;

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
