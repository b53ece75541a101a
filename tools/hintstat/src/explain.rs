// SPDX-License-Identifier: GPL-2.0

//! Reasons why memory is hinted or not, in words.

use crate::show::size;
use crate::source::{Guest, Snapshot, Zone, page_kb};
use anyhow::Result;

/// Lines, each a reason or what to do about it.
pub fn explain(guest: &Guest) -> Result<Vec<String>> {
    if !guest.has_module() {
        return Ok(not_loaded(guest));
    }
    let snapshot = guest.snapshot()?;
    // Only root may see the zones.
    let zones = guest.zones(snapshot.knobs.min_order).unwrap_or_default();
    let mut lines = status(&snapshot, guest);
    lines.extend(backlog(&snapshot, &zones));
    lines.extend(kept(&snapshot));
    lines.extend(fragmented(&snapshot));
    lines.extend(page_cache(guest.page_cache_kb()?));
    lines.extend(host(&snapshot));
    Ok(lines)
}

fn not_loaded(guest: &Guest) -> Vec<String> {
    let why = match guest.has_series() {
        Some(false) => {
            "This kernel cannot load it: it has no CONFIG_PAGE_HINTING=y, or lacks the patches."
        }
        _ if guest.is_shuffled() => {
            "It cannot be loaded, as free pages are shuffled. Boot without page_alloc.shuffle=1."
        }
        _ => {
            "Load it: modprobe page_hinting (or insmod page_hinting.ko). If that fails, see the \
             kernel log."
        }
    };
    vec![
        "Nothing is hinted: the module page_hinting is not loaded.".into(),
        why.into(),
    ]
}

fn no_queue(guest: &Guest) -> Vec<String> {
    let balloons = guest.balloons();
    let why = if balloons.is_empty() {
        "This guest has no balloon device, or no driver is bound to it. With QEMU, add -device \
         virtio-balloon-pci,free-page-reporting=on"
    } else if balloons.contains(&true) {
        "The balloon device offers free page reporting, but another device came first or the driver \
         refused it: see the kernel log."
    } else {
        "The balloon device does not offer free page reporting. With QEMU, add \
         free-page-reporting=on to it."
    };
    vec![
        "Nothing is hinted: there is no device to hint to.".into(),
        why.into(),
    ]
}

fn status(snapshot: &Snapshot, guest: &Guest) -> Vec<String> {
    let stats = &snapshot.stats;
    match snapshot.status.as_str() {
        "no-queue" => no_queue(guest),
        "stalled" => vec![
            format!(
                "Nothing more is hinted: the host has not answered for {} s. {} are in flight.",
                snapshot.stalled_s.unwrap_or(1),
                size(stats.isolated_kb)
            ),
            "Nothing is lost, and hinting resumes when the host answers. On the host, see whether \
             the hypervisor's process is stopped, or short of CPU or disk time."
                .into(),
        ],
        "off" => vec![
            "Nothing is hinted: hinting is off.".into(),
            "To resume: echo 1 > /sys/kernel/mm/page_hinting/enabled".into(),
        ],
        "hinting" => vec![format!(
            "Memory is being hinted: {} are in flight.",
            size(stats.isolated_kb)
        )],
        "paced" => vec!["Hinting is paced: part of the free memory is kept.".into()],
        _ if stats.backlog_kb == 0 => vec!["Hinting is idle: all that may be hinted is.".into()],
        _ => vec!["Hinting is idle, and some free memory is not hinted.".into()],
    }
}

/// Free memory of `min_order` and above that is not hinted, and its zones.
fn backlog(snapshot: &Snapshot, zones: &[Zone]) -> Vec<String> {
    let memory = snapshot.memory;
    let knobs = &snapshot.knobs;
    let backlog_kb = snapshot.stats.backlog_kb;
    let mut lines = vec![format!(
        "Of {} free, {} are in blocks of order {} ({}) and above. {} of these are not hinted.",
        size(memory.free_kb),
        size(memory.eligible_kb),
        knobs.min_order,
        block(knobs.min_order),
        size(backlog_kb.min(memory.eligible_kb))
    )];
    for zone in zones.iter().filter(|zone| zone.unhinted_kb != 0) {
        lines.push(format!(
            "  node {} zone {}: {} not hinted",
            zone.node,
            zone.name,
            size(zone.unhinted_kb)
        ));
    }
    if snapshot.status == "idle" && backlog_kb != 0 {
        if knobs.low_watermark_kb != 0 {
            lines.push(format!(
                "low_watermark_kb leaves {} of each free area unhinted.",
                size(knobs.low_watermark_kb)
            ));
        }
        lines.push(format!(
            "A free area below high_watermark_kb ({}) is hinted within 2 s. What a small zone such \
             as DMA cannot spare is not hinted.",
            size(knobs.high_watermark_kb)
        ));
    }
    lines
}

/// Memory that is kept for `hold_ms`.
fn kept(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.stats.kept_kb == 0 {
        return Vec::new();
    }
    let hold_ms = snapshot.knobs.hold_ms;
    vec![
        format!(
            "{} of free memory are kept, as the guest is likely to use them again within \
             {hold_ms} ms (hold_ms).",
            size(snapshot.stats.kept_kb)
        ),
        format!(
            "Memory that stays free for {hold_ms} ms is hinted. To hint all of it now: hintstat \
             flush. To keep nothing: echo 0 > /sys/kernel/mm/page_hinting/hold_ms"
        ),
    ]
}

/// Free memory in blocks that are too small to be hinted.
fn fragmented(snapshot: &Snapshot) -> Option<String> {
    let memory = snapshot.memory;
    let order = snapshot.knobs.min_order;
    let small_kb = memory.free_kb.saturating_sub(memory.eligible_kb);
    let matters = small_kb > memory.free_kb / 4 && small_kb > snapshot.knobs.high_watermark_kb;
    matters.then(|| {
        format!(
            "{} of free memory are fragmented, in blocks below order {order} ({}), which are not \
             hinted. To merge them: echo 1 > /proc/sys/vm/compact_memory. To hint smaller blocks: \
             lower min_order.",
            size(small_kb),
            block(order)
        )
    })
}

/// The page cache, which is in use for the guest and not free.
fn page_cache(kb: u64) -> Vec<String> {
    if kb == 0 {
        return Vec::new();
    }
    vec![
        format!(
            "{} is page cache, not free, so it is not hinted. The guest frees it when it needs memory.",
            size(kb)
        ),
        format!(
            "What returns that is to reclaim it, for example half of it: echo {}K > \
             /sys/fs/cgroup/memory.reclaim (cgroup v2; with swap, it swaps out, too), or to drop all of \
             it: echo 3 > /proc/sys/vm/drop_caches. Files are then read from disk again.",
            kb / 2
        ),
    ]
}

/// The host's answers, and how to see on the host whether it takes the memory.
fn host(snapshot: &Snapshot) -> Vec<String> {
    let stats = &snapshot.stats;
    let mut lines = Vec::new();
    if stats.errors != 0 {
        lines.push(format!(
            "The device refused, or lost when it was reset, {} of {} requests. See the kernel log.",
            stats.errors, stats.requests
        ));
    }
    if stats.hinted_kb != 0 && snapshot.status != "no-queue" {
        lines.push(format!(
            "The host has acknowledged {} since the module was loaded. Whether it took that memory, \
             the guest cannot know.",
            size(stats.hinted_kb)
        ));
        lines.push(
            "On the host, see whether the resident memory of the hypervisor's process falls (VmRSS \
             in /proc/PID/status). It does not if a VFIO device is assigned, if memory is locked, or \
             during postcopy migration or a background snapshot. After these: hintstat rehint"
                .into(),
        );
    }
    lines
}

/// How large a block of an order is.
fn block(order: u64) -> String {
    match page_kb() << order.min(32) {
        kb if kb < 1024 => format!("{kb} KiB"),
        kb => format!("{} MiB", kb / 1024),
    }
}
