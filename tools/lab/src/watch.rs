// SPDX-License-Identifier: GPL-2.0

//! Watches a QEMU that somebody else runs: what its guest has free, beside what the host
//! gives for it.
//!
//! The guest's side comes from the balloon's statistics, which the guest sends when QEMU
//! asks; the host's from /proc. Nothing is changed but how often QEMU asks, and that is
//! put back.

use crate::bench::chart::{Axis, Chart, Curve, draw};
use crate::cli::WatchArgs;
use crate::interrupt;
use crate::qemu::QmpStream;
use crate::rss::Probe;
use anyhow::{Context, Result, bail, ensure};
use plotters::style::RGBColor;
use procfs::process::Process;
use qapi::{Qmp, Stream, qmp};
use serde::Serialize;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long QEMU has to answer.
const QEMU_LIMIT: Duration = Duration::from_secs(5);
/// Where QEMU keeps devices: those with an id and those without.
const CONTAINERS: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
/// The balloon's property that says how often it asks the guest, in seconds.
const POLLING: &str = "guest-stats-polling-interval";
/// Width of the bar in a line.
const BAR: u64 = 40;

/// What was seen at a moment.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
struct Seen {
    /// Since the watch began.
    seconds: f64,
    /// What the host gives for the guest's RAM, or for all of QEMU.
    resident_kb: u64,
    /// Free in the guest, by its own count; nothing before it has told.
    guest_free_kb: Option<u64>,
    /// Of what is resident, what the guest has free.
    could_come_back_kb: Option<u64>,
}

impl Seen {
    fn new(seconds: f64, ram_kb: u64, resident_kb: u64, guest_free_kb: Option<u64>) -> Self {
        Seen {
            seconds,
            resident_kb,
            guest_free_kb,
            could_come_back_kb: guest_free_kb
                .map(|free| could_come_back(ram_kb, resident_kb, free)),
        }
    }

    /// A line of the live chart.
    fn line(&self, ram_kb: u64) -> String {
        let mib = |kb: Option<u64>| kb.map_or("?".to_owned(), |kb| (kb / 1024).to_string());
        format!(
            "{:>7.1} s  resident {:>6} MiB  guest-free {:>6} MiB  could come back {:>6} MiB  |{}|",
            self.seconds,
            self.resident_kb / 1024,
            mib(self.guest_free_kb),
            mib(self.could_come_back_kb),
            self.bar(ram_kb)
        )
    }

    /// What is resident and used, what is resident and could come back, and the rest.
    fn bar(&self, ram_kb: u64) -> String {
        let cells = |kb: u64| (kb * BAR).div_ceil(ram_kb.max(1)).min(BAR) as usize;
        let resident = cells(self.resident_kb);
        let back = self.could_come_back_kb.unwrap_or(0);
        let used = cells(self.resident_kb - back).min(resident);
        let rest = BAR as usize - resident;
        "#".repeat(used) + &"+".repeat(resident - used) + &".".repeat(rest)
    }
}

/// What is resident beyond what the guest uses; it can't be more than is free there.
fn could_come_back(ram_kb: u64, resident_kb: u64, free_kb: u64) -> u64 {
    let used = ram_kb.saturating_sub(free_kb);
    resident_kb.saturating_sub(used).min(free_kb)
}

/// The guest's free memory in KiB, if it has told.
fn free_kb(stats: &serde_json::Value) -> Option<u64> {
    // What is not known is -1, without a sign.
    let bytes = stats.get("stats")?.get("stat-free-memory")?.as_u64()?;
    (bytes != u64::MAX).then_some(bytes / 1024)
}

/// QEMU's monitor.
struct Monitor {
    qmp: Qmp<QmpStream>,
    balloon: String,
    polling_before: Option<i64>,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(QEMU_LIMIT))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp::new(Stream::new(reader, stream));
        qmp.handshake().with_context(|| {
            format!(
                "{} does not answer as QMP; somebody else may be connected, as QEMU serves one at \
                 a time: give it another one, by -qmp unix:PATH,server=on,wait=off",
                socket.display()
            )
        })?;
        let balloon = find_balloon(&mut qmp)?;
        Ok(Monitor {
            qmp,
            balloon,
            polling_before: None,
        })
    }

    /// The guest's RAM in KiB, without what was plugged in.
    fn ram_kb(&mut self) -> Result<u64> {
        let memory = self.qmp.execute(&qmp::query_memory_size_summary {})?;
        Ok(memory.base_memory / 1024)
    }

    fn get(&mut self, property: &str) -> Result<serde_json::Value> {
        Ok(self.qmp.execute(&qmp::qom_get {
            path: self.balloon.clone(),
            property: property.to_owned(),
        })?)
    }

    fn set_polling(&mut self, seconds: i64) -> Result<()> {
        self.qmp.execute(&qmp::qom_set {
            path: self.balloon.clone(),
            property: POLLING.to_owned(),
            value: seconds.into(),
        })?;
        Ok(())
    }

    /// Has the guest asked so often.
    fn poll(&mut self, seconds: i64) -> Result<()> {
        self.polling_before = self.get(POLLING)?.as_i64();
        self.set_polling(seconds)
    }

    fn free_kb(&mut self) -> Result<Option<u64>> {
        Ok(free_kb(&self.get("guest-stats")?))
    }

    /// As it was before.
    fn leave(mut self) {
        if let Some(before) = self.polling_before {
            // QEMU may be gone.
            let _ = self.set_polling(before);
        }
    }
}

/// The path of the balloon.
fn find_balloon(qmp: &mut Qmp<QmpStream>) -> Result<String> {
    for container in CONTAINERS {
        let devices = qmp.execute(&qmp::qom_list {
            path: container.to_owned(),
        })?;
        let balloon = devices
            .iter()
            .find(|device| device.type_.starts_with("child<virtio-balloon"));
        if let Some(balloon) = balloon {
            return Ok(format!("{container}/{}", balloon.name));
        }
    }
    bail!(
        "this QEMU has no balloon: start it with -device virtio-balloon-pci,free-page-reporting=on"
    );
}

/// How much of the host's memory QEMU has.
enum Resident {
    /// Of the guest's RAM.
    Ram(Box<Probe>),
    /// Of all of the process, where the RAM can't be told from the rest.
    Process(Process),
}

impl Resident {
    fn new(pid: u32, ram_kb: u64) -> Result<Self> {
        let process = Process::new(pid.try_into()?).ok().filter(Process::is_alive);
        let process = process.with_context(|| format!("there is no process {pid}"))?;
        match Probe::new(pid, ram_kb) {
            Ok(probe) => Ok(Self::Ram(Box::new(probe))),
            Err(error) => {
                eprintln!("lab: {error:#}; all of QEMU's memory is shown in its place");
                Ok(Self::Process(process))
            }
        }
    }

    fn kb(&mut self) -> Result<u64> {
        match self {
            Self::Ram(probe) => Ok(probe.look()?.0),
            Self::Process(process) => Ok(process.statm()?.resident * procfs::page_size() / 1024),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Ram(_) => "of the guest's RAM",
            Self::Process(_) => "of the QEMU process",
        }
    }
}

/// What a watch has seen.
#[derive(Serialize)]
struct Record<'a> {
    pid: u32,
    ram_kb: u64,
    resident: &'a str,
    samples: &'a [Seen],
}

pub fn run(args: &WatchArgs) -> Result<bool> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut monitor = Monitor::connect(&args.qmp)?;
    let ram_kb = monitor.ram_kb()?;
    let mut resident = Resident::new(args.pid, ram_kb)?;
    println!(
        "guest     {} MiB, process {}; resident: {}",
        ram_kb / 1024,
        args.pid,
        resident.what()
    );
    println!("bar       # resident and used, + resident and free in the guest, . not resident");
    println!("end       Ctrl-C; then there is a picture");

    let mut seen = Vec::new();
    let outcome = monitor
        .poll(i64::from(args.interval))
        .and_then(|()| watch(args, &mut monitor, &mut resident, ram_kb, &mut seen));
    monitor.leave();
    // A guest that ends while it is watched is no fault.
    if let Err(error) = outcome {
        ensure!(!seen.is_empty(), "{error:#}");
        eprintln!("lab: the watch ends: {error:#}");
    }
    save(args, ram_kb, resident.what(), &seen)?;
    Ok(true)
}

/// Looks until somebody ends it, or the time is over.
fn watch(
    args: &WatchArgs,
    monitor: &mut Monitor,
    resident: &mut Resident,
    ram_kb: u64,
    seen: &mut Vec<Seen>,
) -> Result<()> {
    let began = Instant::now();
    let period = Duration::from_secs(args.interval.into());
    let mut next = began;
    while args
        .seconds
        .is_none_or(|s| began.elapsed() < Duration::from_secs(s))
    {
        let free = monitor.free_kb()?;
        let sample = Seen::new(began.elapsed().as_secs_f64(), ram_kb, resident.kb()?, free);
        println!("{}", sample.line(ram_kb));
        seen.push(sample);
        next += period;
        if interrupt::sleep_until(next).is_err() {
            break;
        }
    }
    Ok(())
}

fn save(args: &WatchArgs, ram_kb: u64, what: &str, seen: &[Seen]) -> Result<()> {
    let json = args.out.join("watch.json");
    let file = File::create(&json).with_context(|| json.display().to_string())?;
    let record = Record {
        pid: args.pid,
        ram_kb,
        resident: what,
        samples: seen,
    };
    serde_json::to_writer_pretty(file, &record)?;

    let mib = |kb: u64| kb as f64 / 1024.0;
    let curve = |label: &str, color, get: &dyn Fn(&Seen) -> Option<u64>| Curve {
        label: label.to_owned(),
        color,
        points: seen
            .iter()
            .filter_map(|sample| Some((sample.seconds, mib(get(sample)?))))
            .collect(),
        is_line: true,
        has_dots: false,
        whiskers: Vec::new(),
    };
    let png = args.out.join("watch.png");
    draw(
        &png,
        &Chart {
            title: format!(
                "A guest of {} MiB, and what its host gives for it",
                ram_kb / 1024
            ),
            caption: format!("resident: {what}; free: by the guest's own count"),
            x: Axis {
                label: "seconds".to_owned(),
                is_log: false,
            },
            y: Axis {
                label: "MiB".to_owned(),
                is_log: false,
            },
            curves: vec![
                curve("resident", RGBColor(0x1f, 0x5f, 0xa8), &|s| {
                    Some(s.resident_kb)
                }),
                curve("guest free", RGBColor(0x5c, 0x8a, 0x5c), &|s| {
                    s.guest_free_kb
                }),
                curve("could come back", RGBColor(0xc4, 0x4e, 0x1c), &|s| {
                    s.could_come_back_kb
                }),
            ],
        },
    )?;
    println!("picture   {}", png.display());
    println!("figures   {}", json.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    const GIB: u64 = 1 << 20;

    #[test]
    fn what_could_come_back_is_resident_and_free() {
        assert_eq!(could_come_back(4 * GIB, 3 * GIB, 3 * GIB), 2 * GIB);
        assert_eq!(could_come_back(4 * GIB, GIB, 3 * GIB), 0);
        // What QEMU has itself is not the guest's.
        assert_eq!(could_come_back(4 * GIB, 6 * GIB, 3 * GIB), 3 * GIB);
    }

    #[test]
    fn what_a_guest_has_not_told_is_not_known() {
        let stats = |free: &str| {
            let text = format!(r#"{{"stats": {{"stat-free-memory": {free}}}, "last-update": 0}}"#);
            free_kb(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(stats("18446744073709551615"), None);
        assert_eq!(stats("2048"), Some(2));
        assert_eq!(free_kb(&serde_json::Value::Null), None);
    }

    #[test]
    fn a_line_shows_where_the_memory_is() {
        let seen = Seen::new(1.0, 4 * GIB, 3 * GIB, Some(3 * GIB));
        let bar = "#".repeat(10) + &"+".repeat(20) + &".".repeat(10);
        assert_eq!(seen.bar(4 * GIB), bar);
        assert!(seen.line(4 * GIB).contains("could come back   2048 MiB"));
        let seen = Seen::new(1.0, 4 * GIB, 5 * GIB, None);
        assert_eq!(seen.bar(4 * GIB), "#".repeat(40));
        assert!(seen.line(4 * GIB).contains("could come back      ? MiB"));
    }

    /// A monitor that has these answers, and the questions that it was asked.
    fn qemu(dir: &Path, answers: &'static [&'static str]) -> thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(dir.join("qmp")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10},
                               "package": ""}, "capabilities": []}}"#;
            writeln!(stream, "{}", greeting.replace('\n', "")).unwrap();
            let mut asked = Vec::new();
            for answer in ["{}"].iter().chain(answers) {
                let line = lines.next().unwrap().unwrap();
                let question: serde_json::Value = serde_json::from_str(&line).unwrap();
                let id = &question["id"];
                asked.push(question["execute"].as_str().unwrap().to_owned());
                writeln!(stream, r#"{{"return": {answer}, "id": {id}}}"#).unwrap();
            }
            asked
        })
    }

    #[test]
    fn qemu_is_asked_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let asked = qemu(
            dir.path(),
            &[
                "[]",
                r#"[{"name": "device[0]", "type": "child<virtio-balloon-pci>"}]"#,
                r#"{"base-memory": 4294967296}"#,
                "0",
                "{}",
                r#"{"stats": {"stat-free-memory": 1048576}, "last-update": 5}"#,
                "{}",
            ],
        );
        let mut monitor = Monitor::connect(&dir.path().join("qmp")).unwrap();
        assert_eq!(monitor.balloon, "/machine/peripheral-anon/device[0]");
        assert_eq!(monitor.ram_kb().unwrap(), 4 * GIB);
        monitor.poll(1).unwrap();
        assert_eq!(monitor.free_kb().unwrap(), Some(1024));
        monitor.leave();
        let asked = asked.join().unwrap();
        assert_eq!(asked[asked.len() - 2..], ["qom-get", "qom-set"]);
    }

    #[test]
    fn a_qemu_without_a_balloon_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let asked = qemu(dir.path(), &["[]", "[]"]);
        let error = Monitor::connect(&dir.path().join("qmp")).err().unwrap();
        assert!(error.to_string().contains("no balloon"), "{error:#}");
        asked.join().unwrap();
        let error = Monitor::connect(&dir.path().join("none")).err().unwrap();
        assert!(error.to_string().contains("cannot connect"), "{error:#}");
    }
}
