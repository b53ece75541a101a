// SPDX-License-Identifier: GPL-2.0

//! Against directories that look like a guest's /sys and /proc.

use hintstat::source::Guest;
use hintstat::{explain, live, show};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MODULE: &str = "sys/kernel/mm/page_hinting";
const BALLOON: &str = "sys/bus/virtio/drivers/virtio_balloon/virtio0/features";

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
        fake
    }

    /// The same with the module loaded, and idle.
    fn with_module() -> Self {
        let fake = Self::new();
        for (name, value) in [
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
        ] {
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

/// Each sample belongs to the family before it, counters end as OpenMetrics has it, and there is
/// one status.
#[test]
fn openmetrics_has_families_in_order() {
    let fake = Fake::with_module();
    fake.set("status", "paced");
    let text = show::openmetrics(&fake.guest().snapshot().unwrap());
    let mut family = (String::new(), String::new());
    let mut statuses = Vec::new();

    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..2] {
            ["#", "TYPE"] => family = (words[2].into(), words[3].into()),
            ["#", "HELP"] => assert_eq!(words[2], family.0),
            _ => {
                let name = words[0].split('{').next().unwrap();
                let suffix = if family.1 == "counter" { "_total" } else { "" };
                assert_eq!(name, format!("{}{suffix}", family.0));
                assert!(words[1].parse::<f64>().is_ok(), "{line}");
                if words[0].starts_with("page_hinting_status") && words[1] == "1" {
                    statuses.push(words[0].to_string());
                }
            }
        }
    }
    assert_eq!(statuses, ["page_hinting_status{status=\"paced\"}"]);
    for line in [
        "page_hinting_hinted_bytes_total 921600000",
        "page_hinting_backlog_bytes 14680064",
        "page_hinting_ack_max_seconds 0.0025",
        "page_hinting_flush_timeout_seconds 10",
        "page_hinting_hold_seconds 1",
        "page_hinting_kept_bytes 12582912",
    ] {
        assert!(text.lines().any(|other| other == line), "no '{line}'");
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
    for (status, word) in [
        ("stalled 3", "not answered for 3 s"),
        ("off", "switched off"),
        ("hinting", "being hinted"),
        ("paced", "12 MiB are kept"),
        ("paced", "free for 1000 ms"),
        ("idle", "idle"),
    ] {
        fake.set("status", status);
        assert!(fake.explained().contains(word), "{status}");
    }
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
    assert!(fake.explained().contains("fragmented"));
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
    assert!(text.contains("not hinted yet 14 MiB"), "{text}");

    fs::remove_dir_all(fake.0.path().join(Path::new(MODULE))).unwrap();
    view.take(fake.guest().snapshot(), start + Duration::from_secs(3));
    let text = screen(&view);
    assert!(text.contains("no page_hinting here"), "{text}");
}
