// SPDX-License-Identifier: GPL-2.0

//! What is hinted, and why the rest is not, in words.

use crate::show::size;
use crate::source::{Guest, Snapshot, Zone};
use anyhow::Result;

/// A cause, or what to do about it: a line each.
pub fn explain(guest: &Guest) -> Result<Vec<String>> {
    if guest.has_module() {
        let snapshot = guest.snapshot()?;
        let zones = guest.zones(snapshot.knobs.min_order).unwrap_or_default();
        let mut lines = status(&snapshot, guest);
        lines.extend(unhinted(&snapshot, &zones));
        return Ok(lines);
    }

    let mut lines = vec!["Nothing is hinted: the module page_hinting is not loaded.".into()];
    lines.push(match guest.has_series() {
        Some(false) => "This kernel cannot load it: it was built without CONFIG_PAGE_HINTING=y, or without the \
             series of page_hinting."
            .into(),
        _ if guest.is_shuffled() => {
            "It cannot be loaded: free pages are shuffled. Boot without page_alloc.shuffle=1.".into()
        }
        _ => "Load it: modprobe page_hinting (or insmod page_hinting.ko). If that fails, the kernel \
              log says why."
            .into(),
    });
    Ok(lines)
}

fn status(snapshot: &Snapshot, guest: &Guest) -> Vec<String> {
    let stats = &snapshot.stats;
    let knobs = &snapshot.knobs;
    match snapshot.status.as_str() {
        "no-queue" => {
            let balloons = guest.balloons();
            let why = if balloons.is_empty() {
                "This guest has no balloon device, or no driver is bound to it. Give it one: QEMU's \
                 -device virtio-balloon-pci,free-page-reporting=on"
            } else if balloons.contains(&true) {
                "The balloon device offers free page reporting, but another device came first or the \
                 driver refused it: see the kernel log."
            } else {
                "The balloon device does not offer free page reporting. With QEMU, add \
                 free-page-reporting=on to it."
            };
            vec![
                "Nothing is hinted: there is no device to hint to.".into(),
                why.into(),
            ]
        }
        "stalled" => vec![
            format!(
                "Nothing more is hinted: the host has not answered for {} s. {} are with it.",
                snapshot.stalled_s.unwrap_or(1),
                size(stats.isolated_kb)
            ),
            "Nothing is lost, and hinting goes on when it answers. Is the virtual machine's process \
             stopped, or very short of time?"
                .into(),
        ],
        "off" => vec![
            "Nothing is hinted: it is switched off.".into(),
            "echo 1 > /sys/kernel/mm/page_hinting/enabled switches it on.".into(),
        ],
        "hinting" => vec![format!(
            "Memory is being hinted: {} are with the host now.",
            size(stats.isolated_kb)
        )],
        "paced" => vec![
            format!(
                "{} are kept from the host: the guest used this memory again soon when it was free \
                 before.",
                size(stats.kept_kb)
            ),
            format!(
                "Each part is hinted when it has been free for {} ms (hold_ms). To have all of it \
                 hinted now: hintstat flush. To keep nothing: write 0 to hold_ms.",
                knobs.hold_ms
            ),
        ],
        _ => vec!["The module is idle: it has hinted what it is to hint.".into()],
    }
}

/// Why free memory is not hinted, whatever the status is.
fn unhinted(snapshot: &Snapshot, zones: &[Zone]) -> Vec<String> {
    let memory = snapshot.memory;
    let knobs = &snapshot.knobs;
    let stats = &snapshot.stats;
    let mut lines = vec![format!(
        "Of {} free, {} are in blocks of order {} and above, and {} of these are not hinted.",
        size(memory.free_kb),
        size(memory.eligible_kb),
        knobs.min_order,
        size(stats.backlog_kb.min(memory.eligible_kb))
    )];

    for zone in zones.iter().filter(|zone| zone.unhinted_kb != 0) {
        lines.push(format!(
            "  node {} zone {}: {} not hinted",
            zone.node,
            zone.name,
            size(zone.unhinted_kb)
        ));
    }
    if snapshot.status == "idle" && stats.backlog_kb != 0 {
        if knobs.low_watermark_kb != 0 {
            lines.push(format!(
                "Of each zone and order, low_watermark_kb keeps {} from being hinted.",
                size(knobs.low_watermark_kb)
            ));
        }
        lines.push(format!(
            "What is below high_watermark_kb, {} of a zone and order, is hinted two seconds later; what \
             a small zone such as DMA needs for itself is not at all.",
            size(knobs.high_watermark_kb)
        ));
    }

    let small = memory.free_kb.saturating_sub(memory.eligible_kb);
    if small > memory.free_kb / 4 && small > knobs.high_watermark_kb {
        lines.push(format!(
            "Memory is fragmented: {} are free in smaller blocks. Make them larger, by echo 1 > \
             /proc/sys/vm/compact_memory, or hint smaller ones, by a lower min_order.",
            size(small)
        ));
    }
    if stats.errors != 0 {
        lines.push(format!(
            "The device refused, or lost by a reset, {} of {} requests.",
            stats.errors, stats.requests
        ));
    }
    lines
}
