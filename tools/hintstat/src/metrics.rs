// SPDX-License-Identifier: GPL-2.0

//! Metrics in base units, in Prometheus's text format and as OpenMetrics.

use crate::cli::MetricsFormat;
use crate::source::Snapshot;
use std::fmt::Write;

/// The words that a status may be.
const STATUSES: [&str; 6] = ["no-queue", "stalled", "off", "hinting", "paced", "idle"];

/// One value. It is a counter if its name ends in `_total`, and else a gauge.
struct Metric {
    name: &'static str,
    value: fn(&Snapshot) -> f64,
    help: &'static str,
}

const fn metric(name: &'static str, value: fn(&Snapshot) -> f64, help: &'static str) -> Metric {
    Metric { name, value, help }
}

fn bytes(kb: u64) -> f64 {
    kb as f64 * 1024.0
}

fn from_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn from_us(us: u64) -> f64 {
    us as f64 / 1e6
}

const INFO: (&str, &str) = (
    "page_hinting_info",
    "The version of hintstat and the kernel release, as labels. Use it to find guests that run an \
     old one.",
);
const UP: (&str, &str) = (
    "page_hinting_up",
    "1 if the module's files could be read. If it is 0, the values are missing: run hintstat explain \
     in the guest.",
);
const STATUS: (&str, &str) = (
    "page_hinting_status",
    "1 for the present status, 0 for each other. If it is no-queue, give the guest a balloon with \
     free page reporting. If it is stalled, look at the host.",
);

/// Every other metric.
const METRICS: &[Metric] = &[
    // Free memory, and the parts of it that are not hinted.
    metric(
        "page_hinting_free_bytes",
        |now| bytes(now.memory.free_kb),
        "Memory on the free lists, hinted or not. Page cache is not free and not in it.",
    ),
    metric(
        "page_hinting_eligible_bytes",
        |now| bytes(now.memory.eligible_kb),
        "Free memory in blocks of min_order and above. If it is far below \
         page_hinting_free_bytes, memory is fragmented: compact it, or lower min_order.",
    ),
    metric(
        "page_hinting_backlog_bytes",
        |now| bytes(now.stats.backlog_kb),
        "Free memory in blocks of min_order and above that is not hinted. If it stays high, run \
         hintstat explain in the guest.",
    ),
    metric(
        "page_hinting_kept_bytes",
        |now| bytes(now.stats.kept_kb),
        "Part of the backlog that is kept for hold_ms, as it recurs. To have the host get it \
         earlier, lower hold_ms.",
    ),
    metric(
        "page_hinting_isolated_bytes",
        |now| bytes(now.stats.isolated_kb),
        "Memory off the free lists to be hinted, which the guest cannot allocate. If it stays \
         above 0, the host does not answer.",
    ),
    metric(
        "page_hinting_isolated_peak_bytes",
        |now| bytes(now.stats.isolated_peak_kb),
        "Most memory that was isolated at a time. If large allocations fail, lower batch_kb.",
    ),
    // Hinted memory, and how often it was used or hinted again.
    metric(
        "page_hinting_hinted_bytes_total",
        |now| bytes(now.stats.hinted_kb),
        "Memory that was hinted and that the host has acknowledged. If it grows and the host's \
         memory does not fall, the host ignores hints.",
    ),
    metric(
        "page_hinting_offline_used_bytes_total",
        |now| bytes(now.stats.offline_used_kb),
        "Hinted memory that the guest used again, a refault each. If it grows as fast as \
         page_hinting_hinted_bytes_total, raise hold_ms.",
    ),
    metric(
        "page_hinting_rehinted_bytes_total",
        |now| bytes(now.stats.rehinted_kb),
        "Hinted memory that merged with other free memory before it was used, and has to be \
         hinted again. If it grows fast, raise min_order.",
    ),
    metric(
        "page_hinting_rehints_total",
        |now| now.stats.rehints as f64,
        "Times that all free memory was to be hinted once more. If you did not ask for it, the \
         guest was hibernated or copied, or the host asked for memory.",
    ),
    metric(
        "page_hinting_wakeups_total",
        |now| now.stats.wakeups as f64,
        "Times that the thread woke up and found memory to hint. If it grows fast and little is \
         hinted, raise high_watermark_kb.",
    ),
    // How the host answers.
    metric(
        "page_hinting_requests_total",
        |now| now.stats.requests as f64,
        "Requests to the host. Those without acknowledgement and error are in flight.",
    ),
    metric(
        "page_hinting_acks_total",
        |now| now.stats.acks as f64,
        "Requests that the host has acknowledged. If it does not grow with \
         page_hinting_requests_total, look at the status and at errors.",
    ),
    metric(
        "page_hinting_errors_total",
        |now| now.stats.errors as f64,
        "Requests that the device refused, or lost when it was reset or removed. If it grows, \
         see the guest's kernel log and the hypervisor's.",
    ),
    metric(
        "page_hinting_stalls_total",
        |now| now.stats.stalls as f64,
        "Times that the host did not answer for a second. If it grows, the hypervisor's process \
         is stopped or short of CPU or disk time.",
    ),
    metric(
        "page_hinting_stalled_seconds",
        |now| now.stalled_s.unwrap_or(0) as f64,
        "How long the host has not answered, 0 if that is less than a second. If it grows, look \
         at the hypervisor's process on the host.",
    ),
    metric(
        "page_hinting_ack_max_seconds",
        |now| from_us(now.stats.ack_us_max),
        "Longest time from a request to its acknowledgement. If it is above 1, see \
         page_hinting_stalls_total.",
    ),
    // The knobs.
    metric(
        "page_hinting_enabled",
        |now| now.knobs.enabled as f64,
        "Knob: 1 if hinting is on. If it is 0, write 1 to enabled to hint again.",
    ),
    metric(
        "page_hinting_min_order",
        |now| now.knobs.min_order as f64,
        "Knob: the lowest order of blocks that are hinted. Lower it to hint the free memory of a \
         fragmented guest.",
    ),
    metric(
        "page_hinting_high_watermark_bytes",
        |now| bytes(now.knobs.high_watermark_kb),
        "Knob: the backlog of a free area that wakes the thread. Lower it to hint small amounts \
         earlier.",
    ),
    metric(
        "page_hinting_low_watermark_bytes",
        |now| bytes(now.knobs.low_watermark_kb),
        "Knob: the backlog that each free area may keep. Set it to 0 to hint all.",
    ),
    metric(
        "page_hinting_batch_bytes",
        |now| bytes(now.knobs.batch_kb),
        "Knob: the most memory that is isolated at a time. Lower it if large allocations fail.",
    ),
    metric(
        "page_hinting_hold_seconds",
        |now| from_ms(now.knobs.hold_ms),
        "Knob: how long memory that recurs is kept. 0 keeps nothing.",
    ),
    metric(
        "page_hinting_host_granule_bytes",
        |now| bytes(now.knobs.host_granule_kb),
        "Knob: the size of the host's pages. Set it to 4 KiB only if the host has no huge pages \
         for the guest.",
    ),
    metric(
        "page_hinting_flush_timeout_seconds",
        |now| from_ms(now.knobs.flush_timeout_ms),
        "Knob: the longest time of a write to flush. hintstat flush has its own.",
    ),
    metric(
        "page_hinting_rehint_on_vmfork",
        |now| now.knobs.rehint_on_vmfork as f64,
        "Knob: 1 if a copy of the guest hints all free memory once more. Set it if copies start \
         with all of their memory resident.",
    ),
];

/// Each metric's name and explanation, for the manual.
pub fn names() -> Vec<(&'static str, &'static str)> {
    let values = METRICS.iter().map(|metric| (metric.name, metric.help));
    [UP, INFO, STATUS].into_iter().chain(values).collect()
}

/// Writes the comment lines of a metric. Only these differ between the formats.
fn head(out: &mut String, (name, help): (&str, &str), format: MetricsFormat) {
    let (family, kind) = match (name.strip_suffix("_total"), name.strip_suffix("_info")) {
        (Some(family), _) => (family, "counter"),
        (_, Some(family)) => (family, "info"),
        _ => (name, "gauge"),
    };
    // Written to a String, which does not fail.
    let _ = match format {
        MetricsFormat::Prometheus => {
            let kind = if kind == "info" { "gauge" } else { kind };
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
        }
        MetricsFormat::Openmetrics => {
            writeln!(out, "# HELP {family} {help}\n# TYPE {family} {kind}")
        }
    };
    if let (MetricsFormat::Openmetrics, Some((_, unit @ ("bytes" | "seconds")))) =
        (format, family.rsplit_once('_'))
    {
        let _ = writeln!(out, "# UNIT {family} {unit}");
    }
}

/// The metrics of a snapshot; without one, only `page_hinting_up 0` and the versions.
pub fn text(kernel: Option<&str>, now: Option<&Snapshot>, format: MetricsFormat) -> String {
    let mut out = String::new();
    head(&mut out, UP, format);
    let _ = writeln!(out, "{} {}", UP.0, u64::from(now.is_some()));
    head(&mut out, INFO, format);
    let _ = writeln!(
        out,
        "{}{{version=\"{}\",kernel=\"{}\"}} 1",
        INFO.0,
        env!("CARGO_PKG_VERSION"),
        kernel.unwrap_or_default()
    );
    if let Some(now) = now {
        head(&mut out, STATUS, format);
        for word in STATUSES {
            let is = u64::from(word == now.status);
            let _ = writeln!(out, "{}{{status=\"{word}\"}} {is}", STATUS.0);
        }
        for metric in METRICS {
            head(&mut out, (metric.name, metric.help), format);
            let _ = writeln!(out, "{} {}", metric.name, (metric.value)(now));
        }
    }
    if format == MetricsFormat::Openmetrics {
        out.push_str("# EOF\n");
    }
    out
}
