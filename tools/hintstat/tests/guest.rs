// SPDX-License-Identifier: GPL-2.0

//! Against directories that look like a guest's /sys and /proc.

use hintstat::cli::MetricsFormat;
use hintstat::source::Guest;
use hintstat::{explain, live, metrics, show};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MODULE: &str = "sys/kernel/mm/page_hinting";
const BALLOON: &str = "sys/bus/virtio/drivers/virtio_balloon/virtio0/features";

/// The module's files, when it is idle.
const FILES: &[(&str, &str)] = &[
    ("status", "idle"),
    ("enabled", "1"),
    ("min_order", "9"),
    ("high_watermark_kb", "16384"),
    ("low_watermark_kb", "0"),
    ("batch_kb", "65536"),
    ("hold_ms", "1000"),
    ("host_granule_kb", "2048"),
    ("flush_timeout_ms", "10000"),
    ("rehint_on_vmfork", "0"),
    ("stats/hinted_kb", "900000"),
    ("stats/rehinted_kb", "4096"),
    ("stats/offline_used_kb", "20480"),
    ("stats/backlog_kb", "14336"),
    ("stats/kept_kb", "12288"),
    ("stats/isolated_kb", "0"),
    ("stats/isolated_peak_kb", "65536"),
    ("stats/requests", "40"),
    ("stats/acks", "40"),
    ("stats/errors", "0"),
    ("stats/stalls", "1"),
    ("stats/ack_us_max", "2500"),
    ("stats/wakeups", "7"),
    ("stats/rehints", "1"),
];

struct Fake(TempDir);

impl Fake {
    /// A guest of 1 GiB, without the module.
    fn new() -> Self {
        let fake = Self(TempDir::new().unwrap());
        fake.write("proc/kallsyms", "0000000000000000 T page_hinting_take\n");
        fake.write(
            "proc/buddyinfo",
            "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 \n\
             Node 0, zone    DMA32      8      4      0      0      0      0      0      0      0      2    200 \n",
        );
        fake.cache(0);
        fake
    }

    /// The same with the module loaded, and idle.
    fn with_module() -> Self {
        let fake = Self::new();
        for (name, value) in FILES {
            fake.set(name, value);
        }
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn set(&self, name: &str, value: &str) {
        self.write(&format!("{MODULE}/{name}"), &format!("{value}\n"));
    }

    /// Has the kernel keep as many KiB of files, beside 4096 in tmpfs.
    fn cache(&self, kb: u64) {
        let table = format!(
            "MemTotal: 1048576 kB\nBuffers: {} kB\nCached: {} kB\nSwapCached: 7 kB\nShmem: 4096 kB\n\
             SReclaimable: {} kB\n",
            kb / 4,
            kb / 2 + 4096,
            kb / 4
        );
        self.write("proc/meminfo", &table);
    }

    fn guest(&self) -> Guest {
        Guest::new(self.0.path())
    }

    fn explained(&self) -> String {
        explain::explain(&self.guest()).unwrap().join("\n")
    }
}

#[test]
fn a_snapshot_has_what_the_files_say() {
    let fake = Fake::with_module();
    let now = fake.guest().snapshot().unwrap();

    assert_eq!(now.status, "idle");
    assert_eq!(now.stalled_s, None);
    assert_eq!(now.knobs.min_order, 9);
    assert_eq!(now.stats.hinted_kb, 900_000);
    // 3 blocks of 4 MiB and one of 2 in DMA, 200 and 2 in DMA32.
    assert_eq!(now.memory.eligible_kb, 203 * 4096 + 3 * 2048);
    assert_eq!(
        now.memory.free_kb,
        now.memory.eligible_kb + 1024 + 8 * 4 + 4 * 8
    );
}

#[test]
fn a_stall_has_a_time() {
    let fake = Fake::with_module();
    fake.set("status", "stalled 17");
    let now = fake.guest().snapshot().unwrap();

    assert_eq!((now.status.as_str(), now.stalled_s), ("stalled", Some(17)));
    assert!(show::text(&now).contains("stalled for 17 s"));
}

#[test]
fn what_is_no_number_is_said_with_its_file() {
    let fake = Fake::with_module();
    fake.set("stats/acks", "many");
    let error = format!("{:#}", fake.guest().snapshot().unwrap_err());

    assert!(error.contains("stats/acks: 'many' is no number"), "{error}");
}

#[test]
fn json_can_be_read_back() {
    let fake = Fake::with_module();
    let text = show::json(&fake.guest().snapshot().unwrap()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();

    assert_eq!(value["status"], "idle");
    assert_eq!(value["knobs"]["batch_kb"], 65536);
    assert_eq!(value["stats"]["offline_used_kb"], 20480);
    assert_eq!(value["memory"]["eligible_kb"], 203 * 4096 + 3 * 2048);
    assert!(value.get("stalled_s").is_none());
}

/// A file's metric: in base units, and as a counter only if it only grows.
fn metric_of(file: &str) -> String {
    let gauges = [
        "backlog_kb",
        "kept_kb",
        "isolated_kb",
        "isolated_peak_kb",
        "ack_us_max",
    ];
    let name = file.trim_start_matches("stats/");
    let counts = file != name && !gauges.contains(&name);
    let stem = name
        .replace("_us_max", "_max_seconds")
        .replace("_kb", "_bytes")
        .replace("_ms", "_seconds");
    format!("page_hinting_{stem}{}", if counts { "_total" } else { "" })
}

#[test]
fn each_file_has_a_metric_in_base_units() {
    let fake = Fake::with_module();
    let now = fake.guest().snapshot().unwrap();
    let text = metrics::text(None, Some(&now), MetricsFormat::Prometheus);

    for (file, value) in FILES.iter().filter(|(file, _)| *file != "status") {
        let value: f64 = value.parse().unwrap();
        let value = match file.rsplit('_').next() {
            Some("kb") => value * 1024.0,
            Some("ms") => value / 1e3,
            Some("max") => value / 1e6,
            _ => value,
        };
        let line = format!("{} {value}", metric_of(file));
        assert!(text.lines().any(|other| other == line), "no '{line}'");
    }
    for line in [
        "page_hinting_up 1",
        "page_hinting_status{status=\"idle\"} 1",
        "page_hinting_status{status=\"stalled\"} 0",
        "page_hinting_stalled_seconds 0",
        "page_hinting_eligible_bytes 857735168",
        "page_hinting_free_bytes 858849280",
    ] {
        assert!(text.lines().any(|other| other == line), "no '{line}'");
    }
}

/// The samples of a text, each with its family, type and unit; each family is explained.
fn samples(text: &str) -> Vec<(String, String, String, String)> {
    let mut samples = Vec::new();
    let (mut family, mut kind, mut unit) = (String::new(), String::new(), String::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..2] {
            ["#", "HELP"] => {
                assert!(words.len() > 8, "no explanation: {line}");
                (family, kind, unit) = (words[2].into(), String::new(), String::new());
            }
            ["#", "TYPE"] => {
                assert_eq!(words[2], family);
                kind = words[3].into();
            }
            ["#", "UNIT"] => {
                assert_eq!(words[2], family);
                unit = words[3].into();
            }
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(words.last().unwrap().parse::<f64>().is_ok(), "{line}");
                samples.push((name.into(), family.clone(), kind.clone(), unit.clone()));
            }
        }
    }
    samples
}

/// A family has the names of its samples, and no types that this format has not.
#[test]
fn the_prometheus_format_has_its_own_families() {
    let fake = Fake::with_module();
    let now = fake.guest().snapshot().unwrap();
    let text = metrics::text(None, Some(&now), MetricsFormat::Prometheus);

    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    for (name, family, kind, _) in samples(&text) {
        assert_eq!(name, family);
        let counts = name.ends_with("_total");
        assert_eq!(kind, if counts { "counter" } else { "gauge" }, "{name}");
    }
}

/// A family has no suffix, and its unit is the end of its name.
#[test]
fn openmetrics_has_its_own_families() {
    let fake = Fake::with_module();
    let now = fake.guest().snapshot().unwrap();
    let text = metrics::text(Some("7.3.4"), Some(&now), MetricsFormat::Openmetrics);

    assert!(text.ends_with("\n# EOF\n"));
    assert!(text.contains(&format!(
        "\npage_hinting_info{{version=\"{}\",kernel=\"7.3.4\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    )));
    for (name, family, kind, unit) in samples(&text) {
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert_eq!(name, format!("{family}{suffix}"));
        let ends = ["bytes", "seconds"]
            .into_iter()
            .find(|end| family.ends_with(end));
        assert_eq!(unit, ends.unwrap_or_default(), "{name}");
    }
}

#[test]
fn without_the_module_the_metrics_say_so() {
    for format in [MetricsFormat::Prometheus, MetricsFormat::Openmetrics] {
        let text = metrics::text(Some("7.3.4"), None, format);
        let names: Vec<String> = samples(&text).into_iter().map(|sample| sample.0).collect();
        assert_eq!(names, ["page_hinting_up", "page_hinting_info"]);
        assert!(text.contains("\npage_hinting_up 0\n"), "{text}");
    }
}

#[test]
fn explains_what_keeps_the_module_out() {
    let fake = Fake::new();
    assert!(fake.explained().contains("modprobe page_hinting"));

    fake.write("sys/module/page_alloc/parameters/shuffle", "Y\n");
    assert!(fake.explained().contains("page_alloc.shuffle=1"));

    fake.write(
        "proc/kallsyms",
        "0000000000000000 T page_reporting_register\n",
    );
    assert!(fake.explained().contains("CONFIG_PAGE_HINTING=y"));
}

#[test]
fn explains_why_there_is_no_queue() {
    let fake = Fake::with_module();
    fake.set("status", "no-queue");
    assert!(fake.explained().contains("no balloon device"));

    fake.write(BALLOON, "0100000000000000000000000000000010000000\n");
    assert!(
        fake.explained()
            .contains("does not offer free page reporting")
    );

    fake.write(BALLOON, "0100010000000000000000000000000010000000\n");
    assert!(fake.explained().contains("another device came first"));
}

#[test]
fn explains_each_status() {
    let fake = Fake::with_module();
    for (status, words) in [
        ("stalled 3", "not answered for 3 s"),
        ("off", "hinting is off"),
        ("hinting", "being hinted"),
        ("paced", "Hinting is paced"),
        ("idle", "idle, and some free memory is not hinted"),
    ] {
        fake.set("status", status);
        assert!(fake.explained().contains(words), "{status}");
    }
    fake.set("stats/backlog_kb", "0");
    assert!(fake.explained().contains("all that may be hinted is"));
}

#[test]
fn explains_kept_memory_whatever_the_status() {
    let fake = Fake::with_module();
    for status in ["paced", "hinting"] {
        fake.set("status", status);
        let text = fake.explained();
        assert!(text.contains("12 MiB of free memory are kept"), "{text}");
        assert!(text.contains("stays free for 1000 ms"), "{text}");
    }
    fake.set("stats/kept_kb", "0");
    assert!(!fake.explained().contains("are kept"));
}

#[test]
fn explains_the_page_cache() {
    let fake = Fake::with_module();
    fake.cache(400 * 1024);
    let text = fake.explained();
    assert!(text.contains("400 MiB is page cache, not free"), "{text}");
    assert!(text.contains("What returns that is"), "{text}");
    assert!(
        text.contains("echo 204800K > /sys/fs/cgroup/memory.reclaim"),
        "{text}"
    );

    fake.cache(0);
    assert!(!fake.explained().contains("page cache"));
}

#[test]
fn explains_what_the_host_may_do() {
    let fake = Fake::with_module();
    let text = fake.explained();
    assert!(text.contains("acknowledged 878 MiB"), "{text}");
    assert!(
        text.contains("the guest cannot know") && text.contains("VmRSS"),
        "{text}"
    );
    assert!(!text.contains("refused"), "{text}");

    fake.set("stats/errors", "3");
    assert!(fake.explained().contains("3 of 40 requests"));
    fake.set("stats/hinted_kb", "0");
    assert!(!fake.explained().contains("VmRSS"));
}

#[test]
fn explains_what_is_left() {
    let fake = Fake::with_module();
    fake.write(
        "sys/kernel/debug/page_hinting/zones",
        "# node zone order free_blocks unhinted_blocks offline_blocks freed_blocks bound_blocks offline_kb\n\
         0 DMA 9 1 1 0 1 0 0\n0 DMA 10 3 3 0 3 0 0\n0 DMA32 3 9 9 0 9 0 0\n0 DMA32 10 200 0 200 300 100 819200\n\
         # node 0 zone DMA: isolated_kb 0\n",
    );
    let text = fake.explained();
    assert!(
        text.contains("node 0 zone DMA: 14 MiB not hinted"),
        "{text}"
    );
    assert!(!text.contains("DMA32:"), "{text}");
    assert!(!text.contains("fragmented"), "{text}");

    fake.set("min_order", "10");
    fake.write(
        "proc/buddyinfo",
        "Node 0, zone    DMA32      0      0      0      0      0      0      0      0      0    100      1 \n",
    );
    let text = fake.explained();
    assert!(
        text.contains("200 MiB of free memory are fragmented, in blocks below order 10 (4 MiB)"),
        "{text}"
    );
    assert!(text.contains("compact_memory"), "{text}");
}

/// What is on the screen, as text.
fn screen(view: &live::View) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    buffer
        .content()
        .chunks(100)
        .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
        .collect()
}

#[test]
fn the_live_view_shows_rates_and_a_module_that_goes() {
    let fake = Fake::with_module();
    let mut view = live::View::default();
    let start = Instant::now();

    view.take(fake.guest().snapshot(), start);
    fake.set("stats/hinted_kb", "1100000");
    view.take(fake.guest().snapshot(), start + Duration::from_secs(2));
    let text = screen(&view);
    assert!(text.contains("status idle"), "{text}");
    assert!(text.contains("hinted 97 MiB/s"), "{text}");
    assert!(text.contains("backlog 14 MiB"), "{text}");

    fs::remove_dir_all(fake.0.path().join(Path::new(MODULE))).unwrap();
    view.take(fake.guest().snapshot(), start + Duration::from_secs(3));
    let text = screen(&view);
    assert!(text.contains("page_hinting cannot be read"), "{text}");
}
